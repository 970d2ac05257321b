"""What a provider of quantum descriptors gives, and which of them may not be inputs of a target.

A provider is an entry point of the group ``qdgnn_ase.descriptors``: a function or class that takes
options and returns a `DescriptorProvider`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

GROUP = "qdgnn_ase.descriptors"
_ENERGIES = frozenset({"energy", "free_energy", "cohesive_energy", "formation_energy"})
_LEVELS = frozenset({"band_gap", "band_gap_direct", "vbm", "cbm", "fermi_level"})
BANNED: dict[str, frozenset[str]] = {
    "formation_energy": _ENERGIES,
    "cohesive_energy": _ENERGIES,
    "energy_above_hull": _ENERGIES | {"energy_above_hull"},
    "band_gap": _LEVELS,
    "metal_probability": _LEVELS,
}
"""Target -> descriptors that are the target itself, or nearly so, at the same level."""


class LeakageError(ValueError):
    """A descriptor would give the label away."""


@dataclass(frozen=True, slots=True)
class Level:
    """How a number was computed."""

    backend: str
    """Code or tier: "gpaw", "xtb", "vasp" ..."""
    functional: str
    """"PBE", "GLLB-SC", "GFN1-xTB" ..."""

    @classmethod
    def parse(cls, text: str) -> Level:
        """Level of "gpaw/PBE".

        Raises:
            ValueError: If the text is not CODE/FUNCTIONAL.
        """
        backend, _, functional = text.partition("/")
        if not backend or not functional:
            raise ValueError(f"level must be CODE/FUNCTIONAL, such as vasp/PBE, got {text!r}")
        return cls(backend, functional)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """Descriptors of one structure."""

    values: Mapping[str, NDArray[np.float64]]
    """Shape () for the structure or (n_atoms,); NaN where missing."""
    mask: Mapping[str, bool]
    """True where the value is known."""
    level: Level
    """Of all values."""
    provenance: Mapping[str, Any]
    """Settings, code version and key of the calculation; ``missing``: name -> reason."""


class DescriptorProvider(Protocol):
    """Descriptors of structures from one source."""

    name: str
    gradient: Literal["constant", "exact"]
    """Constant descriptors carry no derivative by positions: they may not enter an energy."""
    units: Mapping[str, str]
    """Name of each descriptor -> unit."""
    level: Level

    def __call__(self, atoms: Atoms) -> Described:
        """Descriptors of a structure; what is missing is masked, with the reason."""


def descriptor_provider(name: str, **options: Any) -> DescriptorProvider:
    """Provider by the name of its entry point.

    Raises:
        ValueError: If there is none of that name; the message lists what is known.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise ValueError(f"descriptor provider must be one of {sorted(points)}, got {name!r}")
    provider: DescriptorProvider = points[name].load()(**options)
    return provider


def check_condition(target: str, label: Level | None, name: str, level: Level | None) -> None:
    """Refuse a condition that gives the label away; levels that are known are the permission.

    Args:
        target: Name of the property.
        label: How its labels were computed, None if not told.
        name: Name of the condition.
        level: How it was computed, None if not told.

    Raises:
        LeakageError: As `check_leakage`, and where the condition is the target, or fixes it, and
            it is not told how both were computed.
    """
    if label is not None and level is not None:
        check_leakage(target, label, {name: level}, multi_fidelity=True)
    elif name in BANNED.get(target, frozenset()) or name == target:
        raise LeakageError(
            f"condition {name} of target {target} must come from another functional than the "
            "labels, got no level of one or both; tell both, such as --level "
            "COLUMN=vasp/GLLB-SC --level OTHER=gpaw/PBE"
        )


def check_leakage(
    target: str, label: Level, inputs: Mapping[str, Level], *, multi_fidelity: bool = False
) -> None:
    """Refuse descriptors that give the label away.

    Args:
        target: Name of the property.
        label: How its labels were computed.
        inputs: Descriptor -> how it was computed.
        multi_fidelity: Permit the same quantity from another functional.

    Raises:
        LeakageError: If a descriptor comes from the code and functional of the labels, or is the
            target (or fixes it) in the same functional, or in another one without permission.
    """
    for name, level in inputs.items():
        if level == label:
            raise LeakageError(
                f"{name} must not come from the calculation that made the labels of {target}, got "
                f"{level.backend} {level.functional} for both"
            )
        if name not in BANNED.get(target, frozenset()):
            continue
        if level.functional == label.functional:
            raise LeakageError(
                f"{name} of {level.functional} must not be an input of {target}, whose labels are "
                f"of {label.functional} too"
            )
        if not multi_fidelity:
            raise LeakageError(
                f"{name} of {level.functional} may be an input of {target} ({label.functional}) "
                "only where it is asked for; pass multi_fidelity=True"
            )
