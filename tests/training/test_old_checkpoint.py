"""Files of earlier versions load and give the energies they gave then.

``checkpoint_format1.safetensors`` was written by version 0.1.0 with random weights; it is never
written again. A change that breaks this test needs a new format number and a conversion.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms

from qdgnn_ase import QDGNNCalculator, from_atoms
from qdgnn_ase.training.checkpoint import load_model

FOLDER = Path(__file__).parent.parent / "data_files"
FILE = FOLDER / "checkpoint_format1.safetensors"
CASES = json.loads((FOLDER / "checkpoint_format1.json").read_text())

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


def structure(case: dict[str, Any]) -> Atoms:
    return Atoms(**{key: case[key] for key in ("numbers", "positions", "cell", "pbc")})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_energies(case: dict[str, Any], dtype: Any) -> None:
    energy = QDGNNCalculator(FILE, dtype=dtype).get_potential_energy(structure(case))
    assert energy == pytest.approx(case["energy"], abs=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_energies_without_calculator(case: dict[str, Any]) -> None:
    model, document = load_model(FILE)
    assert document["format"] == 1
    graph = from_atoms(structure(case), model.config.cutoff)
    assert model(graph)["energy"].item() == pytest.approx(case["energy"], abs=1e-5)


def test_references_are_part_of_it() -> None:
    """Negative control: without its element energies the file gives other numbers."""
    model, _ = load_model(FILE)
    model.element_energies.zero_()
    for case in CASES:
        graph = from_atoms(structure(case), model.config.cutoff)
        assert abs(model(graph)["energy"].item() - case["energy"]) > 0.1


def test_weights_are_part_of_it() -> None:
    model, _ = load_model(FILE)
    with torch.no_grad():
        model.trunk.layers[0].pair_out.weight *= 1.1
    for case in CASES:
        if case["name"] != "lone_atom":  # no edges, no pairs
            graph = from_atoms(structure(case), model.config.cutoff)
            assert abs(model(graph)["energy"].item() - case["energy"]) > 1e-4, case["name"]
