r"""Make `cohesive.csv`: cohesive energy of each element in its standard state, eV/atom.

Like `make_atomic_table.py` in an environment of its own (Python 3.11):

    python3.11 -m venv /tmp/mendeleev
    /tmp/mendeleev/bin/pip install mendeleev==0.20.1 sqlalchemy==2.0.58
    /tmp/mendeleev/bin/python qdgnn_ase/quantum/make_cohesive_table.py qdgnn_ase/quantum

mendeleev (MIT) has the standard enthalpy of formation of the gaseous atom at 298 K from the CRC
Handbook, in kJ/mol: measured, not DFT. It differs from the value at 0 K by less than 0.03 eV.
Elements without one (noble gases, Pm, Po, At, Rn, Fr) have no row.
"""

from __future__ import annotations

import sys
from pathlib import Path

KJ_PER_MOL_EV = 0.010364269656262175  # CODATA 2018: 1e3 / (e N_A)


def main(folder: Path) -> None:
    """Write the table."""
    from mendeleev import element

    lines = ["atomic_number,symbol,cohesive_energy_ev"]
    for number in range(1, 95):
        row = element(number)
        if row.heat_of_formation is not None:
            energy = row.heat_of_formation * KJ_PER_MOL_EV
            lines.append(f"{number},{row.symbol},{energy:.5f}")
    (folder / "cohesive.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
