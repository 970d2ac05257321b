"""Published phonons: protocol and table; the study of arms: resumption and scores."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

pytest.importorskip("phonopy")
pytest.importorskip("symfc")

from qdgnn_phonons import PhononConfig, harmonic_phonons, relax_crystal
from qdgnn_phonons.bench.compounds import phonon_row, slack
from qdgnn_phonons.bench.published import REFERENCES, choose, compare
from qdgnn_phonons.bench.published import markdown as table


def test_compounds_are_chosen_by_size_and_seed(tmp_path: Path) -> None:
    reference = REFERENCES[0]
    file = tmp_path / reference.file
    file.parent.mkdir()
    rows = []
    for n in (1, 2, 3, 9, 0):
        rows.append(
            {
                "lattice": (4 * np.eye(3)).tolist(),
                "species": ["Cu"] * n or None,
                "frac_coords": np.linspace(0, 0.9, 3 * n).reshape(n, 3).tolist(),
                "heat_capacity_300K": 24.0 * n,
                "material_id": f"m{n}",
            }
        )
    with gzip.open(file, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    structures, values = choose(reference, tmp_path, n=10, max_atoms=4)
    assert {key: len(atoms) for key, atoms in structures.items()} == {"m1": 1, "m2": 2, "m3": 3}
    assert values == {"m1": 24.0, "m2": 24.0, "m3": 24.0}
    assert list(choose(reference, tmp_path, n=2, max_atoms=4)[0]) == list(structures)[:2]


def row(key: str, value: float, *, is_stable: bool = True) -> dict[str, Any]:
    return {"key": key, "last_peak": value, "is_stable": is_stable}


def test_errors_of_a_set() -> None:
    values = {"a": 100.0, "b": 200.0, "c": 400.0, "d": 300.0}
    rows = [
        row("a", 90.0),
        row("b", 180.0),
        row("c", 360.0, is_stable=False),
        {"key": "d", "failure": "ValueError('x')"},
    ]
    result = compare(REFERENCES[1], rows, values, [True, False, False, True])
    assert (result["asked"], result["computed"], result["with_imaginary_modes"]) == (4, 3, 1)
    assert result["failures"] == {"ValueError": 1}
    assert result["all"]["mae"] == pytest.approx(70 / 3)
    assert result["all"]["scale"] == pytest.approx(0.9)
    assert result["all"]["spearman"] == pytest.approx(1.0)
    assert "stable" not in result
    assert "| last_peak | 4 | 3 | 1 | all | 3 | 23.3" in table([result])
    wrong = compare(
        REFERENCES[1], [row("a", 9.0), row("b", 5.0), row("c", 1.0)], values, [True] * 3
    )
    assert wrong["all"]["spearman"] == pytest.approx(-1.0)


def test_rows_of_copper() -> None:
    atoms = bulk("Cu", a=3.6)
    heat = phonon_row("heat_capacity", atoms, EMT())
    assert heat["is_stable"]
    assert 22.5 < heat["heat_capacity"] < 24.5
    assert "last_peak" not in heat
    peak = phonon_row("last_peak", atoms, EMT())
    assert 230 < peak["last_peak"] < 275  # 7 to 8.2 THz


def test_slack_has_its_units() -> None:
    """By hand from its own ingredients; Debye temperature of the right size."""
    config = PhononConfig(supercell=(3, 3, 3))
    atoms = bulk("Cu", a=3.6)
    atoms.calc = EMT()
    crystal = relax_crystal(atoms, config)
    result = slack(crystal, harmonic_phonons(crystal, config))
    gamma, debye = result["gruneisen"], result["debye_kelvin"]
    assert 250 < debye < 350
    assert 1.5 < gamma < 3.0
    prefactor = 2.43e-6 / (1 - 0.514 / gamma + 0.228 / gamma**2)
    size = crystal.get_volume() ** (1 / 3)
    wanted = prefactor * 63.546 * debye**3 * size / (gamma**2 * 300)
    assert result["conductivity"] == pytest.approx(wanted, rel=1e-3)
