"""From CsPbI3 to perovskites with another band gap: forty evaluations of the property model."""

from pathlib import Path
from tempfile import TemporaryDirectory

from ase import Atoms

from qdgnn_ase import Predictor
from qdgnn_design import DesignConfig, SpaceConfig, design, parse_target, surrogate


def main() -> None:
    start = Atoms(
        "CsPbI3",
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
        cell=[6.29] * 3,
        pbc=True,
    )
    targets = [parse_target("band_gap=2.5~0.2"), parse_target("energy_above_hull=:0.05")]
    predictor = Predictor()
    elements = ("Rb", "K", "Sn", "Ge", "Ca", "Sr", "Cd", "Br", "Cl", "F")
    config = DesignConfig(
        method="hill-climb", budget=40, top=5, space=SpaceConfig(elements=elements)
    )
    with TemporaryDirectory() as folder:  # a folder of your own keeps the run and resumes it
        result = design(start, targets, surrogate(predictor, targets), Path(folder), config)
    for ranked in result.candidates:
        outcome = ranked.outcome
        if outcome.values is None:
            continue
        values, std = outcome.values.values, outcome.values.std
        gap, hull = values["band_gap"], values["energy_above_hull"]
        print(
            f"{outcome.candidate.atoms.symbols}: gap {gap:.2f} ± {std['band_gap']:.2f} eV, "
            f"{hull:.3f} eV/atom above the hull; "
            + ("; ".join(ranked.verdict.reasons) or "passes the filter")
        )
    print(result.summary())


if __name__ == "__main__":
    main()
