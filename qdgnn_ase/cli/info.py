"""`qdgnn info` and `qdgnn doctor`."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
import torch
from ase.data import chemical_symbols
from packaging.version import Version
from rich.table import Table

from qdgnn_ase.cli.common import console
from qdgnn_ase.inference.calculator import QDGNNCalculator
from qdgnn_ase.inference.predict import predict
from qdgnn_ase.nn.segment import has_dgl
from qdgnn_ase.training.checkpoint import (
    find_model,
    load_model,
    load_property_model,
    load_tensors,
)

_MINIMUM = {
    "ase": "3.29",
    "numpy": "1.26",
    "pymatgen": "2026.10",
    "safetensors": "0.5",
    "torch": "2.10",
}
_OPTIONAL = {"phonopy": "phonons", "matgl": "matgl"}


@click.command()
@click.argument("model", default="default")
def info(model: str) -> None:
    """What a model is: size, config, training data, elements, units."""
    network, document = _load(model)
    size = sum(parameter.numel() for parameter in network.parameters())
    elements = [chemical_symbols[int(z)] for z in torch.nonzero(network.counts).flatten()]
    path = find_model(model)
    console.print(f"{path} ({path.stat().st_size / 1e6:.2f} MB, {size:,} parameters)")
    console.print(f"{len(elements)} elements: {' '.join(elements)}")
    console.print_json(json.dumps(document))


def _load(model: str) -> tuple[Any, dict[str, Any]]:
    """Potential or property model."""
    if "properties" in load_tensors(find_model(model))[1]:
        network, _, document = load_property_model(model)
        return network, document
    return load_model(model)


@click.command()
def doctor() -> None:
    """Check the installation; says what to fix. Exit code 1 if something must be."""
    rows = [_python(), *(_package(*item) for item in _MINIMUM.items()), _dgl()]
    rows += [_default(), _properties()]
    rows += [_extra(*item) for item in _OPTIONAL.items()]
    table = Table("what", "found", "state")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if any(row[2].startswith("fix") for row in rows):
        raise click.exceptions.Exit(1)


def _python() -> tuple[str, str, str]:
    found = sys.version.split()[0]
    good = sys.version_info >= (3, 11)
    return "python", found, "ok" if good else "fix: install Python 3.11"


def _package(name: str, minimum: str) -> tuple[str, str, str]:
    try:
        found = version(name)
    except PackageNotFoundError:
        return name, "missing", f"fix: pip install '{name}>={minimum}'"
    good = Version(found) >= Version(minimum)
    return name, found, "ok" if good else f"fix: pip install '{name}>={minimum}'"


def _dgl() -> tuple[str, str, str]:
    if has_dgl():
        return "dgl", version("dgl"), "ok"
    if sys.version_info >= (3, 12):
        return "dgl", "missing", "ok: no wheel for this Python, sums run on torch"
    return "dgl", "cannot be imported", "fix: pip install dgl==1.1.3 (sums run on torch meanwhile)"


def _default() -> tuple[str, str, str]:
    """Computes two atoms with the embedded model: weights, graph and derivatives work."""
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", a=5.64)
    try:
        atoms.calc = QDGNNCalculator()
        energy = atoms.get_potential_energy()
    except (OSError, ValueError, RuntimeError) as error:
        return "default model", "fails", f"fix: reinstall qdgnn-ase ({error})"
    return "default model", f"NaCl {energy:.3f} eV", "ok"


def _properties() -> tuple[str, str, str]:
    """Predicts two atoms with the embedded property model."""
    from ase.build import bulk

    try:
        gap = predict(bulk("NaCl", "rocksalt", a=5.64))["band_gap"].value
    except (OSError, ValueError, RuntimeError) as error:
        return "property model", "fails", f"fix: reinstall qdgnn-ase ({error})"
    return "property model", f"NaCl gap {gap:.2f} eV", "ok"


def _extra(name: str, extra: str) -> tuple[str, str, str]:
    try:
        return name, version(name), "ok"
    except PackageNotFoundError:
        return name, "missing", f"optional: pip install 'qdgnn-ase[{extra}]'"
