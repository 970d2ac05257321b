"""The calculators that take the fault cases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.data import chemical_symbols

from qdgnn_ase import QDGNNCalculator, load_model, read_structures
from qdgnn_bench.building import crystal
from qdgnn_bench.faults import Subject


def ours(model: str = "default") -> Subject:
    """QDGNNCalculator with its own reader.

    Args:
        model: Embedded model or checkpoint file.
    """
    network = load_model(model)[0]
    counts = network.counts.tolist()
    return Subject(
        name="ours",
        calculator=lambda: QDGNNCalculator(network, device="cpu"),
        read=lambda path: read_structures(path)[0],
        unseen=tuple(chemical_symbols[z] for z, n in enumerate(counts) if z and not n),
        is_ours=True,
        model=model,
    )


def emt() -> Subject:
    """ASE's effective-medium theory; ``ase.io.read`` reads its files."""
    return Subject(name="EMT", calculator=EMT, read=_ase_read, unseen=("Si", "Fe"))


def m3gnet() -> Subject:
    """M3GNet of matgl with random weights, which change the numbers but not what is checked.

    The output is scaled to -5 eV/atom on a crystal, the size that trained weights give and that
    the tolerances are made for.

    Raises:
        ImportError: If matgl or its DGL backend is not installed.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")
    import matgl

    matgl.set_backend("DGL")
    from matgl.apps.pes import Potential
    from matgl.ext.ase import PESCalculator
    from matgl.models import M3GNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = M3GNet(is_intensive=False)

    def calculator(scale: float) -> Any:
        potential = Potential(network, data_std=scale)
        return PESCalculator(potential, stress_unit="eV/A3", use_voigt=True)

    atoms = crystal()
    atoms.calc = calculator(1.0)
    scale = -5.0 * len(atoms) / atoms.get_potential_energy()
    return Subject(
        name="M3GNet",
        calculator=lambda: calculator(float(scale)),
        read=_ase_read,
        unseen=("Po", "Rn"),
    )


def _ase_read(path: Path) -> Atoms:
    atoms: Atoms = ase.io.read(path)
    return atoms
