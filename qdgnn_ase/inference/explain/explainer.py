"""Which bonds and atoms carry a prediction.

The question is asked with bonds of variable strength (`inference.attribution`). The baseline is
"messages off": the same atoms without a neighbour, as the model sees them. Its own value means
little (a property model never saw lone atoms), so attributions tell what the model does, on the
path from no bonds to all, and not what is true of the material; `qdgnn bench-explain` measures
how far they hold. Attention is no attribution: it is the same for every property of a model.

Bonds reach to the model's cutoff (5 Å), far beyond nearest neighbours. Everything runs in
float64 on the CPU.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.inference.domain import ExtrapolationWarning
from qdgnn_ase.inference.explain.attribution import (
    BondFunction,
    MaskConfig,
    gradient_times_input,
    integrated_gradients,
    optimised_mask,
)
from qdgnn_ase.inference.explain.bonds import Bonds, bonds_of
from qdgnn_ase.inference.explain.explanation import METHODS, Explanation, Method
from qdgnn_ase.inference.predict import Predictor
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.quantum.atomic import N_ELEMENTS
from qdgnn_ase.training.checkpoint import load_model
from qdgnn_ase.training.scaler import center

Array = NDArray[np.float64]
ENERGY = "energy"
"""Target that is the potential's energy, in eV per cell; others are properties."""


class Explainer:
    """A prediction of a model, ready to be explained.

    Args:
        target: "energy", or a property that the model predicts.
        model: Embedded model, checkpoint, ``QDGNN`` (energy) or ``Predictor`` (properties), of
            which a copy is taken; by default "default" and "properties".
        mask: How masks are optimised.
        max_edges: Directed edges per evaluation; bounds the memory.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the model does not predict the target.
    """

    def __init__(
        self,
        target: str = "formation_energy",
        model: str | Path | QDGNN | Predictor | None = None,
        *,
        mask: MaskConfig | None = None,
        max_edges: int = 30_000,
    ) -> None:
        self.target, self.max_edges = target, max_edges
        self.mask = mask or MaskConfig()
        self.model: Any
        if target == ENERGY:
            self.model, self.unit = _potential(model), "eV"
            self.cutoff = self.model.config.cutoff
            return
        predictor = _predictor(target, model)
        self.model = copy.deepcopy(predictor.model).cpu().double()
        self.cutoff = self.model.config.trunk.cutoff
        self._scaler = copy.deepcopy(predictor.scaler).cpu().double()
        self._column = predictor.targets.index(target)
        row = self._scaler.properties[self._column]
        self.unit = {"log10": f"log10({row.unit})", "probability": "logit"}.get(row.scale, row.unit)

    def __call__(self, atoms: Atoms, method: Method = "integrated") -> Explanation:
        """Explain the prediction for one structure; see `explain`."""
        if method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {method!r}")
        graph = self._graph(atoms)
        bonds = bonds_of(graph)
        function = self._function(graph, bonds)
        absent, whole = function.ends()
        scores = self._scores(method, function, graph, bonds)
        return Explanation(
            atoms=atoms.copy(),
            target=self.target,
            method=method,
            unit=self.unit,
            value=whole,
            baseline=absent,
            bonds=bonds,
            bond_scores=scores.numpy(),
            in_domain=self._in_domain(graph),
        )

    def values(self, atoms: Atoms, strengths: Array) -> Array:
        """Predictions with weakened bonds, (n,).

        Args:
            atoms: Structure.
            strengths: (n, n_bonds) from 0 (absent) to 1 (whole), in the order of
                ``Explanation.bonds``.

        Raises:
            ValueError: If the structure cannot be computed or the strengths are not of this form.
        """
        graph = self._graph(atoms)
        bonds = bonds_of(graph)
        rows = np.asarray(strengths, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(bonds) or not ((rows >= 0) & (rows <= 1)).all():
            raise ValueError(
                f"strengths must be (n, {len(bonds)}) numbers from 0 to 1, got shape {rows.shape}, "
                f"{rows.min(initial=np.nan)} to {rows.max(initial=np.nan)}"
            )
        function = self._function(graph, bonds)
        values: Array = function.values(torch.as_tensor(rows)).numpy()
        return values

    def untrained(self, seed: int = 0) -> Explainer:
        """The same with random weights, as before training: a negative control."""
        other = copy.copy(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other.model = type(self.model)(self.model.config, neighbors=self.model.neighbors)
        other.model = other.model.double().eval().requires_grad_(False)
        for name, buffer in self.model.named_buffers():
            other.model.get_buffer(name).copy_(buffer)
        return other

    def _graph(self, atoms: Atoms) -> AtomGraph:
        beyond = sorted({int(z) for z in atoms.numbers if z > N_ELEMENTS})
        if beyond:
            raise ValueError(f"atomic numbers must lie in 1..{N_ELEMENTS}, got {beyond}")
        graph = from_atoms(atoms, self.cutoff, torch.float64)
        numbers = graph.numbers.unique()
        unseen = [chemical_symbols[int(z)] for z in numbers[self.model.counts[numbers] == 0]]
        if unseen:
            warnings.warn(
                f"elements not in the training data: {', '.join(unseen)}",
                ExtrapolationWarning,
                stacklevel=4,
            )
        return graph

    def _in_domain(self, graph: AtomGraph) -> bool:
        seen = bool((self.model.counts[graph.numbers] > 0).all())
        if self.target == ENERGY or not seen:
            return seen
        with torch.no_grad():
            return bool(self.model.in_domain(self.model(graph)["embedding"]).all())

    def _function(self, graph: AtomGraph, bonds: Bonds) -> BondFunction:
        of_edge = torch.as_tensor(bonds.of_edge)

        def rows(strengths: Tensor) -> Tensor:
            batch = collate([graph] * len(strengths))
            return self._predictions(batch, strengths[:, of_edge].reshape(-1, 1))

        return BondFunction(rows, len(bonds), max(1, self.max_edges // max(1, graph.n_edges)))

    def _predictions(self, graph: AtomGraph, strength: Tensor) -> Tensor:
        """Value of each graph, (n_graphs,)."""
        if self.target == ENERGY:
            energy: Tensor = self.model(graph, strength=strength)["energy"]
            return energy
        output = self.model(graph, strength)["values"]
        members = self._scaler.transformed_values(output, graph)[:, self._column]
        return center(members, self._scaler.properties[self._column])

    def _scores(
        self, method: Method, function: BondFunction, graph: AtomGraph, bonds: Bonds
    ) -> Tensor:
        if len(bonds) == 0:
            return torch.zeros(0, dtype=torch.float64)
        if method == "attention":
            of_edge = torch.as_tensor(bonds.of_edge)
            return function.whole().mul(0).index_add(0, of_edge, self._attention(graph))
        if method == "gradient":
            return gradient_times_input(function)
        if method == "integrated":
            return integrated_gradients(function)
        return optimised_mask(function, self.mask)

    def _attention(self, graph: AtomGraph) -> Tensor:
        """Mean attention of each edge over layers and heads, (n_edges,)."""
        weights: list[Tensor] = []

        def record(layer: Any, inputs: tuple[Any, ...]) -> None:
            hidden, _, radial, fc, _, edges = inputs
            weights.append(layer.attention(hidden, radial, fc, edges).mean(dim=1))

        handles = [layer.register_forward_pre_hook(record) for layer in self.model.trunk.layers]
        try:
            with torch.no_grad():
                self.model(graph)
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack(weights).mean(dim=0)


def explain(
    atoms: Atoms,
    target: str = "formation_energy",
    method: Method = "integrated",
    model: str | Path | Explainer | None = None,
) -> Explanation:
    """Scores of the bonds and atoms of a structure for one prediction.

    Args:
        atoms: Structure.
        target: "energy" (of the potential), or a property that the model predicts.
        method: "integrated" (gradients; they add up to value - baseline), "gradient" (times
            input), "mask" (optimised) or "attention" (mean weight, says nothing of the target).
        model: Embedded model, checkpoint, or an `Explainer` (whose target counts).

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If target or method are unknown or the structure cannot be computed.
    """
    explainer = model if isinstance(model, Explainer) else _explainer(target, model)
    return explainer(atoms, method)


@cache
def _explainer(target: str, model: str | Path | None) -> Explainer:
    return Explainer(target, model)


def _potential(model: str | Path | QDGNN | Predictor | None) -> QDGNN:
    if isinstance(model, Predictor):
        raise ValueError("target 'energy' must have a potential, got a property model")
    network = (
        copy.deepcopy(model) if isinstance(model, QDGNN) else load_model(model or "default")[0]
    )
    return network.cpu().double().eval().requires_grad_(False)


def _predictor(target: str, model: str | Path | QDGNN | Predictor | None) -> Predictor:
    if isinstance(model, QDGNN):
        raise ValueError(f"a potential predicts {ENERGY!r} only, got target {target!r}")
    predictor = (
        model if isinstance(model, Predictor) else Predictor(model or "properties", device="cpu")
    )
    if target not in predictor.targets:
        raise ValueError(
            f"target must be {ENERGY!r} or one of {list(predictor.targets)}, got {target!r}"
        )
    return predictor
