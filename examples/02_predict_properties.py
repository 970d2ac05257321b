"""Properties with uncertainties of a few crystals, and which of them the model should not judge."""

from ase import Atoms
from ase.build import bulk

from qdgnn_ase import predict


def main() -> None:
    perovskite = Atoms(
        "SrTiO3",
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
        cell=[3.905] * 3,
        pbc=True,
    )
    crystals = {
        "MgO": bulk("MgO", "rocksalt", a=4.21),
        "Si": bulk("Si", a=5.43),
        "Al": bulk("Al", a=4.05),
        "SrTiO3": perovskite,
        "H at 20 Å": Atoms("H", cell=[20.0] * 3, pbc=True),
    }
    names = ("formation_energy", "band_gap", "bulk_modulus", "debye_temperature")
    for label, row in zip(crystals, predict(list(crystals.values())), strict=True):
        values = [f"{name} {row[name].value:.3g}±{row[name].std:.2g}" for name in names]
        inside = "" if row["band_gap"].in_domain else "  (unlike the training data)"
        print(f"{label}: {', '.join(values)}{inside}")


if __name__ == "__main__":
    main()
