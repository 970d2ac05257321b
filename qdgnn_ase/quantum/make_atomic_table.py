r"""Make the T0 table: `atomic.csv` and `atomic_sources.json` for Z = 1..94.

The libraries it reads are not dependencies of qdgnn_ase. Make an environment of its own
(Python 3.11), then run this file; a second run gives the same bytes:

    python3.11 -m venv /tmp/t0env
    /tmp/t0env/bin/pip install torch==2.13.0          # first and pinned: else CUDA comes along
    /tmp/t0env/bin/pip install torch==2.13.0 numpy==1.26.4 dxtb==0.4.0 mendeleev==0.20.1 \
        sqlalchemy==2.0.58 pymatgen==2026.10.24 pymatgen-core==2026.10.16
    /tmp/t0env/bin/python qdgnn_ase/quantum/make_atomic_table.py qdgnn_ase/quantum

A value that no library has is NaN until a rule below fills it; each rule and the elements it
filled go into `atomic_sources.json`. A NaN that no rule fills stops the script.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = dict[str, Array]

N_ELEMENTS = 94
HARTREE_EV = 27.211386245988  # CODATA 2018
RYDBERG_EV = HARTREE_EV / 2
BOHR_ANGSTROM = 0.529177210903  # CODATA 2018
GROUP_12 = np.array([30, 48, 80]) - 1  # rows of Zn, Cd, Hg
GROUP_13 = np.array([5, 13, 31, 49, 81]) - 1  # rows of B, Al, Ga, In, Tl
PERIOD_7 = np.arange(87, N_ELEMENTS + 1) - 1  # rows of Fr..Pu; the congener is 32 rows above
KEPT_SHELLS = {"s": "s", "p": "sp", "d": "sd", "f": "sdf"}  # by block; the rest is core
LICENCES = {
    "dxtb": "Apache-2.0",
    "mendeleev": "MIT",
    "pymatgen-core": "MIT",
}
GFN1 = "GFN1-xTB, Grimme, Bannwarth, Shushkov, JCTC 13, 1989 (2017)"
NIST_LDA = "NIST atomic reference data, Kotochigova et al., PRA 55, 191 (1997)"
COMPLETE = "none needed: the source has every element"
CONGENER = "Z = 87..94 (beyond GFN1): value of the congener Z - 32 times the ratio of the two"


@dataclass(frozen=True)
class Column:
    """What one column of the table is.

    Attributes:
        unit: Unit of the values.
        description: What the values mean.
        library: Name of the Python package the values come from.
        reference: Publication or data collection behind the library's values.
        rule: How a missing value is filled.
    """

    unit: str
    description: str
    library: str
    reference: str
    rule: str


def level_column(shell: str, extra: str) -> Column:
    """Describe a GFN1 level column; `extra` names the rules of that shell alone."""
    text = f"on-site energy of the valence {shell} shell in GFN1-xTB, fitted by its authors"
    return Column("eV", text, "dxtb", GFN1, f"{extra}{CONGENER} ionisation energies")


def lda_column(shell: str, extra: str) -> Column:
    """Describe an LDA eigenvalue column; `extra` names the rules of that shell alone."""
    text = f"non-relativistic LDA eigenvalue of the occupied valence {shell} shell"
    rule = "GFN1 level times the least-squares ratio LDA/GFN1 of that shell over occupied shells"
    return Column("eV", text, "pymatgen-core", NIST_LDA, f"{extra}{rule}")


def radius_column(shell: str, extra: str) -> Column:
    """Describe a column of mean orbital radii from Slater exponents."""
    text = f"mean radius (n + 1/2) / zeta of the GFN1-xTB Slater function of the {shell} shell"
    return Column("Å", text, "dxtb", GFN1, f"{extra}{CONGENER} covalent radii")


def taken(unit: str, description: str, library: str, reference: str) -> Column:
    """Describe a column that a library has for every element."""
    return Column(unit, description, library, reference, COMPLETE)


def count_column(shell: str) -> Column:
    """Describe a column of valence electron counts."""
    text = (
        f"{shell} valence electrons of the ground state; counted shells by block: s: s, p: s p, "
        "d: s d (Zn has 10 d), f: s d f (Yb has 14 f); filled d below p and filled f below d are "
        "core; Lu counts as d block"
    )
    return taken("electrons", text, "mendeleev", "ground-state configurations (NIST)")


P_EMPTY = "H, He: hydrogenic level -Ry/2^2 = -3.40 eV; "
D_EMPTY = (
    "Zn, Cd, Hg (filled d): LDA eigenvalue over the least-squares ratio LDA/GFN1 of the d shells; "
    "elements without a d shell in GFN1: hydrogenic level -Ry/3^2 = -1.51 eV; "
)
LDA_LINE = "Np, Pu: straight line through Pa and U; "
LDA_P = (
    "empty shell from Li on: LDA s level of the element times the mean p/s ratio of group 13 "
    "(B, Al, Ga, In, Tl), so that p lies above s; H, He: "
)
R_EMPTY = (
    "missing empty shell: radius of the s shell times the median ratio over the known empty ones; "
)
R_GROUP_12 = "Zn, Cd, Hg: value of the neighbour Z - 1; "

COLUMNS = {
    "level_s_ev": level_column("s", ""),
    "level_p_ev": level_column("p", P_EMPTY),
    "level_d_ev": level_column("d", D_EMPTY),
    "lda_level_s_ev": lda_column("s", LDA_LINE + "Pd: "),
    "lda_level_p_ev": lda_column("p", LDA_P),
    "lda_level_d_ev": lda_column("d", LDA_LINE + "empty shell: "),
    "orbital_radius_s_angstrom": radius_column("s", ""),
    "orbital_radius_p_angstrom": radius_column("p", R_EMPTY),
    "orbital_radius_d_angstrom": radius_column("d", R_GROUP_12 + R_EMPTY),
    "ionization_energy_ev": taken(
        "eV", "first ionisation energy", "mendeleev", "NIST Atomic Spectra Database"
    ),
    "electron_affinity_ev": taken(
        "eV",
        "electron affinity, signed: negative where the anion is unbound (He, Be, N, Ne, Mg, Ar, "
        "Mn, Zn, Kr, Cd, Xe, Yb, Hg, Rn, Pu), an estimate there, neither clipped nor set to zero",
        "pymatgen-core",
        "measured values, and estimates for unbound anions, as tabulated in pymatgen",
    ),
    "hardness_ev": taken(
        "eV",
        "chemical hardness (I - A) / 2 from ionization_energy_ev and electron_affinity_ev",
        "mendeleev",
        "Parr and Pearson, JACS 105, 7512 (1983); A from pymatgen-core",
    ),
    "electronegativity_pauling": Column(
        "Pauling",
        "Pauling electronegativity",
        "pymatgen-core",
        "Pauling scale as tabulated in pymatgen",
        "He, Ne, Ar: linear fit of Pauling against Allen electronegativity (mendeleev, en_allen) "
        "over the elements that have both",
    ),
    "polarizability_bohr3": taken(
        "a0^3",
        "static dipole polarizability of the free atom",
        "mendeleev",
        "Schwerdtfeger and Nagle, Mol. Phys. 117, 1200 (2019)",
    ),
    "covalent_radius_angstrom": taken(
        "Å",
        "covalent radius, single bond",
        "mendeleev",
        "Pyykkö and Atsumi, Chem. Eur. J. 15, 186 (2009)",
    ),
    "atomic_radius_angstrom": taken(
        "Å",
        "radius of the free atom where the density is 0.001 e/a0^3",
        "mendeleev",
        "Rahm, Hoffmann, Ashcroft, Chem. Eur. J. 22, 14625 (2016)",
    ),
    "vdw_radius_angstrom": taken(
        "Å", "van der Waals radius", "mendeleev", "CRC Handbook of Chemistry and Physics, 95th ed."
    ),
    "n_s": count_column("s"),
    "n_p": count_column("p"),
    "n_d": count_column("d"),
    "n_f": count_column("f"),
    "n_valence": taken(
        "electrons", "n_s + n_p + n_d + n_f", "mendeleev", "ground-state configurations (NIST)"
    ),
}


def valence_counts(configuration: str, block: str) -> dict[str, int]:
    """Count the valence electrons per shell of e.g. `"[Ar] 3d10 4s2"` in block `"d"`."""
    counts = dict.fromkeys("spdf", 0)
    for shell, number in re.findall(r"\b\d([spdf])(\d*)", configuration):
        if shell in KEPT_SHELLS[block]:
            counts[shell] += int(number or 1)
    return counts


def read_mendeleev() -> tuple[Columns, list[str], Array]:
    """Read columns, symbols and the Allen electronegativity (eV, with NaN) from mendeleev."""
    from mendeleev import fetch  # type: ignore[import-not-found,unused-ignore]

    frame = fetch.fetch_table("elements").set_index("atomic_number").loc[1:N_ELEMENTS]
    frame.loc[71, "block"] = "d"  # Lu: mendeleev has La in the d block and Lu in the f block
    ionization = fetch.fetch_ionization_energies(1)["IE1"].loc[1:N_ELEMENTS]
    columns: Columns = {
        "ionization_energy_ev": ionization.to_numpy(float),
        "polarizability_bohr3": frame["dipole_polarizability"].to_numpy(float),
        "covalent_radius_angstrom": frame["covalent_radius_pyykko"].to_numpy(float) / 100,
        "atomic_radius_angstrom": frame["atomic_radius_rahm"].to_numpy(float) / 100,
        "vdw_radius_angstrom": frame["vdw_radius"].to_numpy(float) / 100,  # pm -> Å
    }
    pairs = zip(frame["electronic_configuration"], frame["block"], strict=True)
    counts = [valence_counts(configuration, block) for configuration, block in pairs]
    columns |= {f"n_{shell}": np.array([float(c[shell]) for c in counts]) for shell in "spdf"}
    return columns, list(frame["symbol"]), frame["en_allen"].to_numpy(float)


def read_pymatgen() -> Columns:
    """Read electron affinity, Pauling electronegativity and LDA levels (eV) from pymatgen."""
    from pymatgen.core.periodic_table import Element

    elements = [Element.from_Z(z) for z in range(1, N_ELEMENTS + 1)]
    table = [(element.data, element.row) for element in elements]
    columns = {
        "electron_affinity_ev": np.array([data["Electron affinity"] for data, _ in table]),
        "electronegativity_pauling": np.array([to_float(data.get("X")) for data, _ in table]),
    }
    for shell, below in (("s", 0), ("p", 0), ("d", 1)):
        levels = [
            to_float(orbitals_of(data).get(f"{period - below}{shell}")) for data, period in table
        ]
        columns[f"lda_level_{shell}_ev"] = np.array(levels) * HARTREE_EV
    return columns


def orbitals_of(data: dict[str, Any]) -> dict[str, float]:
    """Return the LDA eigenvalues of an element by shell, empty where pymatgen has none."""
    orbitals = data.get("Atomic orbitals")
    return orbitals if isinstance(orbitals, dict) else {}


def to_float(value: object) -> float:
    """Turn a library's number into a float; what is no number becomes NaN."""
    return float(value) if isinstance(value, int | float) else np.nan


def read_gfn1(symbols: list[str]) -> Columns:
    """Read levels (eV) and mean orbital radii (Å) of the first s, p, d shell from dxtb's GFN1."""
    from dxtb import GFN1_XTB  # type: ignore[import-not-found,unused-ignore]

    names = [f"level_{x}_ev" for x in "spd"] + [f"orbital_radius_{x}_angstrom" for x in "spd"]
    columns = {name: np.full(N_ELEMENTS, np.nan) for name in names}
    for row, symbol in enumerate(symbols):
        element = GFN1_XTB.element.get(symbol)
        if element is None:
            continue
        shells = zip(element.shells, element.levels, element.slater, strict=True)
        for shell, level, zeta in reversed(list(shells)):  # the first shell of a kind wins
            radius = (int(shell[0]) + 0.5) / float(zeta) * BOHR_ANGSTROM
            columns[f"level_{shell[1]}_ev"][row] = float(level)
            columns[f"orbital_radius_{shell[1]}_angstrom"][row] = radius
    return columns


def fill(values: Array, replacement: Array | float) -> Array:
    """Return `values` with NaN replaced."""
    return np.where(np.isnan(values), replacement, values)


def fill_period_7(values: Array, scale: Array) -> Array:
    """Fill missing Z = 87..94 with the congener's value times the ratio of `scale`."""
    replacement = np.full(N_ELEMENTS, np.nan)
    congener = PERIOD_7 - 32
    replacement[PERIOD_7] = values[congener] * scale[PERIOD_7] / scale[congener]
    return fill(values, replacement)


def fill_levels(columns: Columns, shell: str) -> Columns:
    """Fill the GFN1 and LDA levels of one shell (eV); p needs the LDA levels of s filled."""
    level, lda = columns[f"level_{shell}_ev"].copy(), columns[f"lda_level_{shell}_ev"].copy()
    both = ~np.isnan(level) & ~np.isnan(lda)
    ratio = float(level[both] @ lda[both] / (level[both] @ level[both]))
    if shell == "d":
        level[GROUP_12] = lda[GROUP_12] / ratio
    if shell != "s":
        empty = -RYDBERG_EV / {"p": 2, "d": 3}[shell] ** 2
        level[:86] = fill(level[:86], empty)
    level = fill_period_7(level, columns["ionization_energy_ev"])
    if shell == "p":
        lda_s = columns["lda_level_s_ev"]
        lda[2:] = fill(lda[2:], np.mean(lda[GROUP_13] / lda_s[GROUP_13]) * lda_s[2:])
    else:
        pa, uranium = lda[90], lda[91]
        lda[92:94] = uranium + (uranium - pa) * np.array([1.0, 2.0])
    return {f"level_{shell}_ev": level, f"lda_level_{shell}_ev": fill(lda, ratio * level)}


def fill_radii(columns: Columns, shell: str) -> Columns:
    """Fill the mean orbital radii of one shell (Å)."""
    name = f"orbital_radius_{shell}_angstrom"
    radius, radius_s = columns[name].copy(), columns["orbital_radius_s_angstrom"]
    if shell == "d":
        radius[GROUP_12] = radius[GROUP_12 - 1]
    if shell != "s":
        empty = (columns[f"n_{shell}"] == 0) & ~np.isnan(radius)
        radius[:86] = fill(radius[:86], np.median(radius[empty] / radius_s[empty]) * radius_s[:86])
    return {name: fill_period_7(radius, columns["covalent_radius_angstrom"])}


def fill_linear(values: Array, other: Array) -> Array:
    """Fill NaN from a straight line of `values` against `other`, fitted where both exist."""
    both = ~np.isnan(values) & ~np.isnan(other)
    slope, offset = np.polyfit(other[both], values[both], 1)
    return fill(values, slope * other + offset)


def mask_core(columns: Columns) -> Columns:
    """Set LDA levels of shells that are no valence shell of the element to NaN."""
    for shell in "spd":
        name = f"lda_level_{shell}_ev"
        columns[name] = np.where(columns[f"n_{shell}"] > 0, columns[name], np.nan)
    return columns


def make_table() -> tuple[list[str], Columns, dict[str, list[int]]]:
    """Return symbols, complete columns, and per column the Z that a rule filled."""
    raw, symbols, allen = read_mendeleev()
    raw = mask_core(raw | read_pymatgen() | read_gfn1(symbols))
    raw["hardness_ev"] = (raw["ionization_energy_ev"] - raw["electron_affinity_ev"]) / 2
    raw["n_valence"] = raw["n_s"] + raw["n_p"] + raw["n_d"] + raw["n_f"]
    table = raw | {
        "electronegativity_pauling": fill_linear(raw["electronegativity_pauling"], allen)
    }
    for shell in "spd":
        table |= fill_levels(table, shell) | fill_radii(table, shell)
    for name in COLUMNS:
        if not np.isfinite(table[name]).all():
            missing = [symbols[row] for row in np.flatnonzero(~np.isfinite(table[name]))]
            raise ValueError(f"column {name} must be complete, got NaN for {missing}: add a rule")
    filled = {name: (np.flatnonzero(np.isnan(raw[name])) + 1).tolist() for name in COLUMNS}
    return symbols, {name: table[name] for name in COLUMNS}, filled


def csv_text(symbols: list[str], table: Columns) -> str:
    """Format the table, eight significant digits, one row per element."""
    lines = [",".join(["atomic_number", "symbol", *table])]
    for row, symbol in enumerate(symbols):
        values = [f"{column[row]:.8g}" for column in table.values()]
        lines.append(",".join([str(row + 1), symbol, *values]))
    return "\n".join(lines) + "\n"


def sources(filled: dict[str, list[int]], sha256: str) -> dict[str, Any]:
    """Return the content of `atomic_sources.json`."""
    columns = {
        name: {
            "unit": column.unit,
            "description": column.description,
            "library": column.library,
            "version": version(column.library),
            "licence": LICENCES[column.library],
            "reference": column.reference,
            "missing_value_rule": column.rule,
            "filled_atomic_numbers": filled[name],
        }
        for name, column in COLUMNS.items()
    }
    return {"table": {"file": "atomic.csv", "sha256": sha256}, "columns": columns}


def main(out_dir: str) -> None:
    """Write `atomic.csv` and `atomic_sources.json` into `out_dir`."""
    symbols, table, filled = make_table()
    text = csv_text(symbols, table).encode()
    content = sources(filled, hashlib.sha256(text).hexdigest())
    Path(out_dir, "atomic.csv").write_bytes(text)
    json_text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    Path(out_dir, "atomic_sources.json").write_bytes(json_text.encode())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} OUT_DIR (an existing folder)")
    main(sys.argv[1])
