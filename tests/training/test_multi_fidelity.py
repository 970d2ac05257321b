"""A condition that is the target of another level: refused unless both levels are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from click.testing import CliRunner

from qdgnn_ase import LeakageError, PropertyTrainConfig, load_property_model
from qdgnn_ase.cli.train import train

LEVELS = {"gllb": "gpaw/GLLB-SC", "pbe": "vasp/PBE"}


def config(
    condition: dict[str, str], levels: dict[str, str], target: str = "band_gap"
) -> PropertyTrainConfig:
    return PropertyTrainConfig.from_dict(
        {
            "sources": [
                {
                    "file": "rows.extxyz",
                    "columns": {target: "gllb"},
                    "conditions": condition,
                    "levels": levels,
                }
            ]
        }
    )


@pytest.mark.parametrize(
    ("target", "condition", "levels"),
    [
        ("band_gap", {"band_gap": "pbe"}, LEVELS),
        ("band_gap", {"fermi_level": "pbe"}, LEVELS),
        ("band_gap", {"formation_energy": "pbe"}, {}),
        ("bulk_modulus", {"band_gap": "pbe"}, {}),
        ("band_gap", {"temperature": "pbe"}, {}),
    ],
)
def test_permitted(target: str, condition: dict[str, str], levels: dict[str, str]) -> None:
    assert config(condition, levels, target).conditions == tuple(condition)


@pytest.mark.parametrize(
    ("target", "condition", "levels", "match"),
    [
        ("band_gap", {"band_gap": "pbe"}, {}, "got no level of one or both"),
        ("band_gap", {"fermi_level": "pbe"}, {"pbe": "vasp/PBE"}, "got no level of one or both"),
        ("bulk_modulus", {"bulk_modulus": "pbe"}, {}, "got no level of one or both"),
        ("energy_above_hull", {"formation_energy": "pbe"}, {}, "got no level of one or both"),
        (
            "band_gap",
            {"band_gap": "pbe"},
            {"gllb": "gpaw/PBE", "pbe": "vasp/PBE"},
            "must not be an input of band_gap",
        ),
        (
            "bulk_modulus",
            {"volume": "pbe"},
            {"gllb": "vasp/PBE", "pbe": "vasp/PBE"},
            "must not come from the calculation that made the labels",
        ),
        (
            "band_gap",
            {"guess": "gllb"},
            {},
            "must not come from the labels of band_gap, got",
        ),
    ],
)
def test_refused(
    target: str, condition: dict[str, str], levels: dict[str, str], match: str
) -> None:
    with pytest.raises(LeakageError, match=match):
        config(condition, levels, target)


def test_a_condition_of_another_file_is_checked_too() -> None:
    sources = [
        {"file": "a.extxyz", "columns": {"band_gap": "gap"}},
        {"file": "b.extxyz", "columns": {"bulk_modulus": "K"}, "conditions": {"band_gap": "gap"}},
    ]
    with pytest.raises(LeakageError, match="condition band_gap of target band_gap"):
        PropertyTrainConfig.from_dict({"sources": sources})


@pytest.mark.parametrize(
    ("levels", "match"),
    [({"hse": "vasp/HSE06"}, r"levels must be of columns \['gllb', 'pbe'\]")]
    + [({"pbe": text}, "must be CODE/FUNCTIONAL") for text in ("PBE", "vasp/", "/PBE")],
)
def test_wrong_levels(levels: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        config({"band_gap": "pbe"}, {"gllb": "gpaw/GLLB-SC", **levels})


def test_a_level_is_read_where_no_condition_needs_it() -> None:
    with pytest.raises(ValueError, match="must be CODE/FUNCTIONAL"):
        config({}, {"gllb": "GLLB-SC"})


def test_command_and_record_of_the_permission(tmp_path: Path) -> None:
    frames = []
    for cation in ("Li", "Na", "K", "Mg", "Ca", "Sr"):
        for k, anion in enumerate(("F", "Cl", "O", "S")):
            atoms = bulk(cation + anion, "rocksalt", a=5.0)
            atoms.info = {"pbe": float(k), "gllb": 1.4 * k + 0.3}
            frames.append(atoms)
    rows = tmp_path / "rows.extxyz"
    write(rows, frames)
    run = tmp_path / "run"
    arguments = [str(rows), "--target", "band_gap=gllb", "--condition", "band_gap=pbe"]
    arguments += ["--epochs", "1", "-o", str(run)]
    refused = CliRunner().invoke(train, arguments)
    assert refused.exit_code == 2
    assert "--level" in refused.output
    assert not run.exists()
    levels = [f"--level={column}={level}" for column, level in LEVELS.items()]
    done = CliRunner().invoke(train, [*arguments, *levels])
    assert done.exit_code == 0, done.output
    assert json.loads((run / "config.json").read_text())["sources"][0]["levels"] == LEVELS
    document = load_property_model(run / "best.safetensors")[2]
    assert document["training"]["train_config"]["sources"][0]["levels"] == LEVELS
