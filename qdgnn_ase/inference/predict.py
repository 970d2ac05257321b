"""Properties of structures with uncertainties, from a property model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure

from qdgnn_ase.data.dataset import batch_indices
from qdgnn_ase.data.materials import Material, as_atoms
from qdgnn_ase.graph import AtomGraph, Basis, amounts, basis, collate, site_graph
from qdgnn_ase.inference.derived import (
    cohesive_energy,
    debye_function,
    lindemann_temperature,
    poisson_ratio,
    propagated,
    young_modulus,
)
from qdgnn_ase.nn.speed import keep_freed_memory
from qdgnn_ase.properties import PROPERTIES
from qdgnn_ase.quantum.references import check_elements
from qdgnn_ase.training.checkpoint import load_property_model

Array = NDArray[np.float64]
Conditions: TypeAlias = Mapping[str, float] | Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One property of one structure."""

    value: float
    """In ``unit``."""
    std: float
    """Standard deviation in ``unit``: spread of the heads, calibrated on the validation fold."""
    unit: str
    in_domain: bool
    """False where an element was not in training, the structure is unlike the training data, a
    condition is beyond its values there, or nothing with this ``basis`` was in training."""
    derived: bool = False
    """Computed from other predictions by a formula."""
    basis: Basis = "structure"
    """What it rests on: an ordered "structure", a "disordered" one whose shared sites are means of
    their elements, or the "composition" alone."""
    own_domain: bool = False
    """Its head was added to the model and trained on other structures: ``in_domain`` is about those
    and may differ from that of the other properties."""


class Predictor:
    """A property model, ready to be asked.

    Args:
        model: "properties" (the embedded weights) or the path of a checkpoint.
        device: Torch device; the GPU if there is one, else the CPU.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the checkpoint is damaged or no property model.
    """

    def __init__(self, model: str | Path = "properties", device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model, self.scaler, self.document = load_property_model(model, self.device)
        self.model.requires_grad_(False)
        keep_freed_memory()
        self._seen = self.model.counts.cpu() > 0
        training = self.document["training"]
        self._bases = set(training.get("bases", ("structure",)))
        self._added_bases: dict[str, set[str]] = {
            name: set(run["bases"]) for run in training.get("added", ()) for name in run["targets"]
        }

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the learned properties."""
        return self.model.config.targets

    def __call__(
        self,
        structures: Sequence[Material],
        max_edges: int = 100_000,
        conditions: Conditions | None = None,
    ) -> list[dict[str, Prediction]]:
        """Predictions of many structures, computed together, in order; see `predict`."""
        frames = _frames(structures)
        graphs, batches = self._graphs(frames, max_edges, conditions)
        rows = [row for batch in batches for row in self._batch(batch, frames, graphs)]
        for atoms, graph, row in zip(frames, graphs, rows, strict=True):
            row |= _cohesion(atoms, row) | _elasticity(atoms, graph, row)
        return rows

    def embedding(self, structures: Sequence[Material], max_edges: int = 100_000) -> Array:
        """Mean features of the atoms of each structure, (n_structures, hidden).

        Raises:
            ValueError: If a structure cannot be computed.
        """
        graphs, batches = self._graphs(_frames(structures), max_edges)
        rows = [np.zeros((0, self.model.config.trunk.hidden))]
        for batch in batches:
            graph = collate([graphs[k] for k in batch]).to(self.device)
            with torch.no_grad():
                rows.append(self.model(graph)["embedding"].double().cpu().numpy())
        return np.concatenate(rows)

    def _graphs(
        self,
        structures: Sequence[Atoms],
        max_edges: int,
        conditions: Conditions | None = None,
    ) -> tuple[list[AtomGraph], list[list[int]]]:
        """Graphs, and the indices of those that are computed together."""
        graphs = [self._graph(atoms, index) for index, atoms in enumerate(structures)]
        if conditions is not None:
            rows = self._condition_rows(conditions, len(graphs))
            graphs = [
                replace(graph, conditions=graph.positions.new_tensor([row]))
                for graph, row in zip(graphs, rows, strict=True)
            ]
        return graphs, list(batch_indices([graph.n_edges for graph in graphs], max_edges))

    def _graph(self, atoms: Atoms, index: int) -> AtomGraph:
        try:
            check_elements(amounts(atoms))
            return site_graph(atoms, self.model.config.trunk.cutoff)
        except ValueError as error:
            raise ValueError(f"structure {index}: {error}") from error

    def _condition_rows(self, conditions: Conditions, n: int) -> list[list[float]]:
        """Values of the model's conditions for each structure, NaN = absent."""
        given = [conditions] * n if isinstance(conditions, Mapping) else list(conditions)
        if len(given) != n:
            raise ValueError(
                f"conditions must be one dict, or one for each of {n} structures, got {len(given)}"
            )
        known = self.model.config.conditions
        for index, row in enumerate(given):
            if unknown := sorted(set(row) - set(known)):
                raise ValueError(
                    f"structure {index}: conditions must be of those that the model was trained "
                    f"with, {list(known)}, got {unknown}"
                )
            if infinite := sorted(name for name, value in row.items() if np.isinf(value)):
                raise ValueError(f"structure {index}: conditions must be finite, got {infinite}")
        return [[float(row.get(name, np.nan)) for name in known] for row in given]

    def _batch(
        self, indices: list[int], frames: list[Atoms], graphs: list[AtomGraph]
    ) -> list[dict[str, Prediction]]:
        graph = collate([graphs[k] for k in indices]).to(self.device)
        with torch.no_grad():
            output = self.model(graph)
            values, std = self.scaler.predictions(output["values"], graph)
            near = self.model.in_domain(output["embedding"])
            if self.model.conditions is not None:
                near &= self.model.conditions.in_range(self.model.conditions_of(graph))
        batch = [frames[k] for k in indices]
        bases = [basis(atoms) for atoms in batch]
        rows = zip(values.tolist(), std.tolist(), strict=True)
        inside = [bool(near[i]) and self._knows(atoms, bases[i]) for i, atoms in enumerate(batch)]
        own = self._added_domains(batch, bases, output["embedding"])
        return [
            {
                row.name: Prediction(
                    value,
                    sigma,
                    row.unit,
                    own[row.name][i] if row.name in own else inside[i],
                    basis=bases[i],
                    own_domain=row.name in own,
                )
                for row, value, sigma in zip(self.scaler.properties, *pair, strict=True)
            }
            for i, pair in enumerate(rows)
        ]

    def _added_domains(
        self, batch: list[Atoms], bases: list[Basis], embedding: torch.Tensor
    ) -> dict[str, list[bool]]:
        """Whether each structure is in the domain of each head that was added."""
        found = {}
        for name, domain in self.model.head_domains().items():
            near = domain.in_domain(embedding)
            n_elements = len(domain.counts)
            found[name] = [
                bool(near[i])
                and bases[i] in self._added_bases[name]
                and domain.knows(torch.as_tensor(amounts(atoms)[:n_elements], device=self.device))
                for i, atoms in enumerate(batch)
            ]
        return found

    def _knows(self, atoms: Atoms, kind: Basis) -> bool:
        """Whether its elements and its kind of graph were in training."""
        return kind in self._bases and bool(self._seen[np.flatnonzero(amounts(atoms))].all())


def predict(
    structures: Material | Sequence[Material],
    model: str | Path | Predictor = "properties",
    conditions: Conditions | None = None,
) -> Any:
    """Properties of one structure, or of each of a sequence: name -> `Prediction`.

    Names and units are those of `qdgnn_ase.PROPERTIES`; a derived property is left out where it has
    no value (elements without a measured cohesive energy, structures without a volume). Structures
    should be relaxed, as those of the training data are.

    In a disordered structure every site is one node: embedding and quantum descriptors are the
    means over its elements weighted by occupancy, and vacancies lower its weight. A formula has a
    node for each element and no edges. Both are marked in ``Prediction.basis``, and out of domain
    for what was trained without such, as all of the embedded weights but the conductivity was.

    Args:
        structures: Atoms (with ASE's record of occupancies, where sites are shared), a pymatgen
            structure or its dict, a composition or a formula such as "Li3PS4"; or a sequence of
            these.
        model: "properties" (the embedded weights), the path of a checkpoint, or a `Predictor`.
        conditions: What the model was trained with, ``{"temperature": 300}``, for all structures or
            one dict for each. An absent one is masked; a value beyond those of training, and an
            absent one if none was absent there, are out of domain.

    Returns:
        A dict for one structure, a list of dicts for a sequence.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If a structure cannot be computed (the message tells which and why), a condition
            is not known to the model, or the checkpoint is damaged.
    """
    predictor = model if isinstance(model, Predictor) else _predictor(str(model))
    if isinstance(structures, Atoms | Structure | Composition | str | Mapping):
        return predictor([structures], conditions=conditions)[0]
    return predictor(structures, conditions=conditions)


def _frames(materials: Sequence[Material]) -> list[Atoms]:
    frames = []
    for index, material in enumerate(materials):
        try:
            frames.append(as_atoms(material))
        except ValueError as error:
            raise ValueError(f"structure {index}: {error}") from error
    return frames


@cache
def _predictor(model: str) -> Predictor:
    return Predictor(model)


def _cohesion(atoms: Atoms, row: dict[str, Prediction]) -> dict[str, Prediction]:
    if "formation_energy" not in row:
        return {}
    formation = row["formation_energy"]
    value = cohesive_energy(formation.value, amounts(atoms))
    if np.isnan(value):
        return {}
    return {"cohesive_energy": replace(formation, value=value, derived=True)}


def _elasticity(
    atoms: Atoms, graph: AtomGraph, row: dict[str, Prediction]
) -> dict[str, Prediction]:
    if not {"bulk_modulus", "shear_modulus"} <= row.keys() or atoms.cell.rank < 3:
        return {}
    bulk, shear = row["bulk_modulus"], row["shear_modulus"]
    distances = graph.edge_vectors().norm(dim=1)
    shortest = float(distances.min()) if len(distances) else float("nan")
    functions: dict[str, Callable[[float, float], float]] = {
        "young_modulus": young_modulus,
        "poisson_ratio": poisson_ratio,
    }
    if bulk.basis == "structure":  # masses and shortest bond are those of atoms, not of means
        debye = debye_function(atoms)
        functions |= {
            "debye_temperature": debye,
            "lindemann_temperature": lambda k, g: lindemann_temperature(
                debye(k, g), atoms, shortest
            ),
        }
    pairs = (bulk.value, bulk.std), (shear.value, shear.std)
    return {
        name: replace(bulk, value=value, std=std, unit=PROPERTIES[name].unit, derived=True)
        for name, function in functions.items()
        for value, std in [propagated(function, *pairs)]
    }
