"""Errors in and out of the domain, and the offset of another scale of energies."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_ase import predict
from qdgnn_bench.transfer import domain_errors, transfer

CATIONS = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn"]
ANIONS = ["F", "Cl", "Br", "I", "O", "S", "Se", "Te"]
CRYSTALS = [bulk(a + b, "rocksalt", a=5.0) for a in CATIONS for b in ANIONS]


def test_an_offset_of_the_elements_is_taken_out() -> None:
    """Another correction per oxygen atom is no error of the model; noise is."""
    rng = np.random.default_rng(0)
    correction = np.array([-0.7 * (atoms.numbers == 8).mean() for atoms in CRYSTALS])
    noise = 0.02 * rng.normal(size=len(CRYSTALS))
    inside = np.arange(len(CRYSTALS)) % 5 > 0
    found = domain_errors(CRYSTALS, correction + noise, inside)
    assert found["all"]["structures"] == 80
    assert found["out of domain"]["structures"] == 16
    assert found["all"]["mae"] == pytest.approx(np.abs(correction + noise).mean())
    assert found["all"]["mae_offset"] < 0.6 * found["all"]["mae"]
    low, high = found["all"]["mae_interval"]
    assert low < found["all"]["mae"] < high


def test_noise_alone_is_not_explained() -> None:
    """Negative control: offsets fitted to noise on one half do not lower the other's error."""
    noise = 0.1 * np.random.default_rng(1).normal(size=len(CRYSTALS))
    found = domain_errors(CRYSTALS, noise, np.ones(len(CRYSTALS), bool))
    assert found["all"]["mae_offset"] > 0.9 * found["all"]["mae"]
    assert found["out of domain"] == {"structures": 0}


def test_command(tmp_path: Path) -> None:
    crystals = [atoms.copy() for atoms in CRYSTALS[:12]]
    for atoms, row in zip(crystals, predict(crystals), strict=True):
        atoms.info["energy_label"] = row["formation_energy"].value - 0.05
    path, output = tmp_path / "rows.extxyz", tmp_path / "out.json"
    ase.io.write(path, crystals)
    target = ["--target", "formation_energy=energy_label", "--json", str(output)]
    done = CliRunner().invoke(transfer, [str(path), *target])
    assert done.exit_code == 0, done.output
    errors = json.loads(output.read_text())["errors"]
    assert errors["all"]["mae"] == pytest.approx(0.05, abs=1e-4)
    assert errors["all"]["mae_offset"] < 0.02
    assert "| all | 12 | 0.050" in output.with_suffix(".md").read_text()
    wrong = CliRunner().invoke(transfer, [str(path), "--target", "bulk_modulus=x"])
    assert "linear scale" in wrong.output
