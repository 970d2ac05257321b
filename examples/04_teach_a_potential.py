"""From a teacher to a potential of one's own: thermal frames, labels, fine-tuning, errors.

ASE's EMT teaches because it is quick; DFT (`qdgnn label --backend gpaw`) can take its place.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ase import Atoms
from ase.calculators.emt import EMT

from qdgnn_ase import (
    QDGNNCalculator,
    TrainConfig,
    evaluate,
    fit,
    label,
    load_model,
    molecular_dynamics,
)
from qdgnn_phonons import PhononConfig, harmonic_phonons, normal_modes, relax_crystal, sample_frames


def teachers_crystal() -> Atoms:
    """Ordered Cu3Au."""
    faces = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    atoms = Atoms("AuCu3", scaled_positions=faces, cell=[3.75] * 3, pbc=True)
    atoms.calc = EMT()
    return atoms


def thermal_frames(crystal: Atoms, config: PhononConfig) -> list[Atoms]:
    """Supercells displaced along the teacher's phonons, as they would be at 300 and 600 K."""
    modes = normal_modes(harmonic_phonons(crystal, config))
    return sample_frames(modes, "phonon", temperatures=[300.0, 600.0], n=12, seed=0)


def write_dynamics(crystal: Atoms, path: Path) -> None:
    """The teacher's own molecular dynamics at 450 K, to test on."""
    atoms = crystal.repeat(2)
    atoms.calc = EMT()
    molecular_dynamics(
        atoms, temperature=450, steps=160, timestep_fs=4.0, interval=20, trajectory=path
    )


def main() -> None:
    torch.set_num_threads(1)  # more are slower for small cells
    crystal = relax_crystal(teachers_crystal(), config := PhononConfig(supercell=(2, 2, 2)))
    with TemporaryDirectory() as name:
        train, test = Path(name, "train.extxyz"), Path(name, "test.extxyz")
        label(thermal_frames(crystal, config), EMT, train)  # goes on where it was killed
        write_dynamics(crystal, test)
        run = TrainConfig(
            files=(str(train),),
            model=load_model("default")[0].config,
            init="default",  # the element references are refitted to the teacher's energies
            split_by="frame",
            epochs=5,
            max_edges=6_000,
            learning_rate=1e-3,
            val=0.1,
        )
        best = fit(run, Path(name, "run"))
        models: dict[str, str | Path] = {"default": "default", "fine-tuned": best}
        for title, model in models.items():
            errors = evaluate(QDGNNCalculator(model), test)
            print(
                f"{title}: energy {1e3 * errors['energy_mae_shifted']:.2f} meV/atom (offset "
                f"removed), forces {1e3 * errors['forces_mae']:.0f} meV/Å, "
                f"stress {errors['stress_mae']:.2f} GPa"
            )


if __name__ == "__main__":
    main()
