"""QDGNNCalculator: a checkpoint as an ASE calculator.

Units are ASE's: eV, eV/Å, eV/Å^3, tension positive, Voigt order xx yy zz yz xz xy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    InputError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from qdgnn_ase.data.dataset import batch_indices
from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.inference.domain import Domain
from qdgnn_ase.nn.compile import CompiledPotential
from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.speed import keep_freed_memory
from qdgnn_ase.training.checkpoint import load_model

Array = NDArray[np.float64]
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class QDGNNCalculator(Calculator):  # type: ignore[misc]  # ASE is untyped
    """Energy, forces and stress of a trained potential.

    Args:
        model: "default" (the embedded weights), the path of a checkpoint, or a ``QDGNN``, of which
            a copy is taken.
        device: Torch device; the GPU if there is one, else the CPU.
        dtype: "float32", or "float64" for finite differences and tight phonon work.
        fast: Compile the potential at the first calculation (about a minute) and tune the matrix
            products of the whole process (``nn.speed.tune_process``): same numbers to rounding,
            half the time. One ``CompilationWarning`` and eager numbers where there is no C++
            compiler. Spawn worker processes: a forked one may hang. A spawned worker or a copy
            compiles for itself, with inductor's cache on disk.
        **kwargs: Passed to ``ase.calculators.calculator.Calculator``.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the checkpoint is damaged or ``dtype`` is unknown.

    A structure that cannot be computed raises ASE's ``InputError``; ``stress`` of a structure
    without a volume raises ``PropertyNotImplementedError``. Elements outside the training data and
    pairs closer than its shortest distances give one ``ExtrapolationWarning`` each. The process
    keeps the memory that calculations free (``nn.speed.keep_freed_memory``).
    """

    name = "qdgnn"
    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(
        self,
        model: str | Path | QDGNN = "default",
        device: str | None = None,
        dtype: str = "float32",
        *,
        fast: bool = False,
        **kwargs: Any,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {sorted(_DTYPES)}, got {dtype!r}")
        super().__init__(**kwargs)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = _DTYPES[dtype]
        network = copy.deepcopy(model) if isinstance(model, QDGNN) else load_model(model)[0]
        self.model = network.to(self.device, self.dtype).eval().requires_grad_(False)
        self.domain = Domain(self.model)
        self.compiled = CompiledPotential(self.model) if fast else None
        keep_freed_memory()
        label = "QDGNN instance" if isinstance(model, QDGNN) else str(model)
        self.parameters.update(model=label, device=str(self.device), dtype=dtype)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results`` with everything the model gives for ``atoms``."""
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = {}  # a failure must not leave the numbers of another structure behind
        self.results = self.predict_batch([self.atoms])[0]

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the last structure, exactly; charges and moments change no result."""
        if self.atoms is None:
            return list(all_changes)
        same = {
            "positions": np.array_equal(self.atoms.positions, atoms.positions),
            "numbers": np.array_equal(self.atoms.numbers, atoms.numbers),
            "cell": np.array_equal(self.atoms.cell.array, atoms.cell.array),
            "pbc": np.array_equal(self.atoms.pbc, atoms.pbc),
        }
        return [name for name, equal in same.items() if not equal]

    def predict_batch(
        self, structures: Sequence[Atoms], max_edges: int = 200_000
    ) -> list[dict[str, Any]]:
        """Results of many structures, computed together, in order.

        Args:
            structures: Any number of structures.
            max_edges: Directed edges per batch; bounds the memory.

        Returns:
            Per structure: energy, free_energy (float, eV), energies (n_atoms,), forces
            (n_atoms, 3) and, where there is a volume, stress (6,).
        """
        results: list[dict[str, Any]] = []
        with _gradients():
            graphs = [self._graph(atoms) for atoms in structures]
            for batch in batch_indices([graph.n_edges for graph in graphs], max_edges):
                joined = collate([graphs[index] for index in batch])
                results += self._results(joined)
        return results

    def get_descriptors(self, atoms: Atoms) -> Array:
        """Scalar features of the last layer, (n_atoms, hidden)."""
        with torch.no_grad():
            return _numpy(self.model(self._graph(atoms))["hidden"])

    def get_hessian(self, atoms: Atoms) -> Array:
        """Second derivatives of the energy in eV/Å^2, (3 * n_atoms, 3 * n_atoms)."""
        with _gradients():
            return _numpy(hessian(self.model, self._graph(atoms)))

    def _graph(self, atoms: Atoms) -> AtomGraph:
        try:
            self.domain.check_elements(atoms)
            graph = from_atoms(atoms, self.model.config.cutoff, self.dtype)
        except ValueError as error:
            raise InputError(str(error)) from error
        self.domain.check_distances(graph)
        return graph.to(self.device)

    def _results(self, graph: AtomGraph) -> list[dict[str, Any]]:
        if self.compiled is None:
            output = energy_forces_stress(self.model, graph)
        else:
            output = self.compiled(graph)
        output = {name: value.detach() for name, value in output.items()}
        sizes = graph.n_atoms.tolist()
        rows = zip(
            output["energy"].tolist(),
            output["energies"].split(sizes),
            output["forces"].split(sizes),
            output["stress"],
            strict=True,
        )
        return [_result(*row) for row in rows]


def _result(
    energy: float, energies: torch.Tensor, forces: torch.Tensor, stress: torch.Tensor
) -> dict[str, Any]:
    if not np.isfinite(energy) or not bool(torch.isfinite(forces).all()):
        raise CalculationFailed(
            f"energy and forces must be finite, got {energy} eV; the structure is far outside the "
            "training data, look at its shortest distances"
        )
    result: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": _numpy(energies),
        "forces": _numpy(forces),
    }
    if bool(torch.isfinite(stress).all()):
        result["stress"] = full_3x3_to_voigt_6_stress(_numpy(stress))
    return result


@contextmanager
def _gradients() -> Iterator[None]:
    """Forces are derivatives, also inside the caller's ``no_grad`` or ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy().astype(np.float64)
