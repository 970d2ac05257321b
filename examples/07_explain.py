"""Which bonds carry a predicted property, whether methods agree, and whether the bonds matter."""

import numpy as np
from ase import Atoms
from ase.build import bulk

from qdgnn_ase import Explainer, agreement


def main() -> None:
    perovskite = Atoms(
        "SrTiO3",
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
        cell=[3.905] * 3,
        pbc=True,
    )
    explainer = Explainer("formation_energy")
    for atoms in (bulk("NaCl", "rocksalt", a=5.64), bulk("Si", a=5.43), perovskite):
        found = explainer(atoms)  # integrated gradients: they add up to value - baseline
        print(
            f"{atoms.symbols}: {found.value:.3f} {found.unit}, {found.baseline:.3f} without bonds; "
            f"sum of the bonds {found.bond_scores.sum():.3f}"
        )
        for row in found.pair_summaries()[:3]:
            print(f"  {row.n_bonds} {row.pair} from {row.shortest:.2f} Å on: {row.total:+.3f}")
        print(f"  by atom: {np.array2string(found.atom_scores, precision=3)}")

        gradient = explainer(atoms, "gradient")
        for (a, b), rank in agreement([found, gradient]).items():
            print(f"  rank correlation of {a} and {b}: {rank:.2f}")

        n = len(found.bonds) // 5  # take a fifth of the bonds away: the first named, the last named
        strengths = np.ones((2, len(found.bonds)))
        strengths[0, found.ranking()[:n]] = 0
        strengths[1, found.ranking()[-n:]] = 0
        first, last = explainer.values(atoms, strengths) - found.value
        print(f"  without the first {n} bonds {first:+.3f}, without the last {n} {last:+.3f}")


if __name__ == "__main__":
    main()
