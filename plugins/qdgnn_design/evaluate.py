"""Values of structures: from the property model, from a calculator, from any function.

An evaluator takes structures and gives for each its `Values`, or says in words why it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, CalculatorError

from qdgnn_ase import Prediction, Predictor, relax
from qdgnn_design.targets import Target

RELAX_STEPS = 50
"""Most steps of the relaxation before an evaluation."""


@dataclass(frozen=True, slots=True)
class Values:
    """What is known of one structure."""

    values: dict[str, float]
    """In the units of `qdgnn_ase.PROPERTIES`."""
    std: dict[str, float] = field(default_factory=dict)
    in_domain: bool = True
    relaxed: Atoms | None = None
    """The structure that the values belong to, if it was relaxed first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        document = {"values": self.values, "std": self.std, "in_domain": self.in_domain}
        if self.relaxed is None:
            return document
        cell, positions = self.relaxed.cell.array.tolist(), self.relaxed.positions.tolist()
        return document | {"cell": cell, "positions": positions}

    @classmethod
    def from_dict(cls, document: dict[str, Any], atoms: Atoms) -> Values:
        """Inverse of :meth:`to_dict`; elements and arrays are those of ``atoms``."""
        relaxed = None
        if "cell" in document:
            relaxed = atoms.copy()
            relaxed.set_cell(document["cell"])
            relaxed.positions[:] = document["positions"]
        return cls(document["values"], document["std"], document["in_domain"], relaxed)


Evaluator = Callable[[Sequence[Atoms]], "list[Values | str]"]


def surrogate(
    predictor: Predictor,
    targets: Sequence[Target] = (),
    calculator: Calculator | None = None,
    steps: int = RELAX_STEPS,
) -> Evaluator:
    """The property model, all structures of a call in batches.

    Args:
        predictor: Property model.
        targets: Those with a function of their own are computed too.
        calculator: Relaxes cell and positions first, if given.
        steps: Most steps of that relaxation.

    Raises:
        ValueError: If neither the predictor nor a function gives a target.
    """
    known = set(predictor([bulk("Al")])[0])  # the learned ones and those that follow from them
    own = [target for target in targets if target.function is not None]
    wanted = {target.name for target in targets}
    if missing := wanted - known - {t.name for t in own}:
        raise ValueError(
            f"targets must be of {sorted(known)} with this model, got {sorted(missing)}; pass "
            "another model or a function"
        )

    def evaluate(structures: Sequence[Atoms]) -> list[Values | str]:
        relaxed = [_relaxed(atoms, calculator, steps) for atoms in structures]
        good = [atoms for atoms in relaxed if isinstance(atoms, Atoms)]
        rows = iter(_predictions(predictor, good))
        return [
            atoms
            if isinstance(atoms, str)
            else _complete(_values(next(rows), atoms, own, calculator, wanted), wanted)
            for atoms in relaxed
        ]

    return evaluate


def from_functions(targets: Sequence[Target]) -> Evaluator:
    """Every target by its own function; an exception of ASE or a ValueError is a failure.

    Raises:
        ValueError: If a target has no function.
    """
    if lacking := [target.name for target in targets if target.function is None]:
        raise ValueError(f"every target must have a function here, {lacking} have none")

    def evaluate(structures: Sequence[Atoms]) -> list[Values | str]:
        return [_values({}, atoms, targets, None) for atoms in structures]

    return evaluate


def _values(
    row: dict[str, Prediction] | str,
    atoms: Atoms,
    own: Sequence[Target],
    calculator: Calculator | None,
    wanted: set[str] | None = None,
) -> Values | str:
    if isinstance(row, str):
        return row
    values = {name: prediction.value for name, prediction in row.items()}
    try:
        values |= {t.name: float(t.function(atoms)) for t in own if t.function is not None}
    except (CalculatorError, ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    if wrong := [name for name, value in values.items() if not isfinite(value)]:
        return f"not finite: {', '.join(wrong)}"
    return Values(
        values,
        {name: prediction.std for name, prediction in row.items()},
        all(p.in_domain for name, p in row.items() if not p.own_domain or name in (wanted or ())),
        None if calculator is None else atoms,
    )


def _complete(values: Values | str, wanted: set[str]) -> Values | str:
    """The values, or that a derived one does not exist for these elements."""
    if isinstance(values, str) or wanted <= values.values.keys():
        return values
    return f"no value: {', '.join(sorted(wanted - values.values.keys()))}"


def _relaxed(atoms: Atoms, calculator: Calculator | None, steps: int) -> Atoms | str:
    if calculator is None:
        return atoms
    copy = atoms.copy()
    copy.calc = calculator
    try:
        relax(copy, steps=steps)
    except (CalculatorError, ValueError, ArithmeticError) as error:
        return f"relaxation failed: {error}"
    copy.calc = None
    return copy


def _predictions(
    predictor: Predictor, structures: Sequence[Atoms]
) -> list[dict[str, Prediction] | str]:
    """Predictions or, where a structure is refused, why."""
    try:
        return list(predictor(structures)) if structures else []
    except ValueError:
        return [_prediction(predictor, atoms) for atoms in structures]


def _prediction(predictor: Predictor, atoms: Atoms) -> dict[str, Prediction] | str:
    try:
        return predictor([atoms])[0]
    except ValueError as error:
        return str(error).removeprefix("structure 0: ")
