"""What is wanted of a material, and how near a candidate comes.

Score (higher is better) with distances d_k in units of the tolerance and weights w_k:

    score = -sum_k w_k d_k^2 + sum_k w_k (±v_k - c_k sigma_k) / tolerance_k

The first sum, -|P - P*|^2, runs over targets with a value or a range, the second over maximised (+)
and minimised (-) properties; c_k sigma_k, caution times uncertainty, counts for all. Rewards,
temperatures and expected improvements take `squash(score)`, sign(s) ln(1 + |s|), which orders
candidates alike and keeps a far start from drowning all else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, inf, isfinite, log1p
from typing import Literal

from ase import Atoms

from qdgnn_ase import PROPERTIES

TOLERANCES = {
    "formation_energy": 0.05,
    "energy_above_hull": 0.025,
    "band_gap": 0.1,
    "metal_probability": 0.1,
    "poisson_ratio": 0.02,
}
"""In the property's unit; other targets: 5 % of the wanted value, 1 where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One wanted property."""

    name: str
    """Name of `qdgnn_ase.PROPERTIES`, or of your own with ``function``."""
    goal: Literal["range", "maximise", "minimise"] = "range"
    low: float = -inf
    """Of a range; equal to ``high`` for a value."""
    high: float = inf
    tolerance: float = 1.0
    """Unit of the distance; a value counts as met within it."""
    weight: float = 1.0
    caution: float = 0.0
    """Penalty of the uncertainty sigma of a value: so many times sigma, in tolerances."""
    function: Callable[[Atoms], float] | None = None
    """The property as a function of the structure, if no predictor knows it."""

    def __post_init__(self) -> None:
        if self.function is None and self.name not in PROPERTIES:
            raise ValueError(f"target must be one of {list(PROPERTIES)}, got {self.name!r}")
        if not self.low <= self.high:
            raise ValueError(f"{self.name}: low must not exceed high, got {self.low}:{self.high}")
        if not (self.tolerance > 0 and self.weight > 0 and self.caution >= 0):
            raise ValueError(
                f"{self.name}: tolerance and weight must be > 0 and caution >= 0, got "
                f"{self.tolerance}, {self.weight} and {self.caution}"
            )

    def distance(self, value: float) -> float:
        """How far a value is from the range, in tolerances; 0 where there is none."""
        if self.goal != "range":
            return 0.0
        return max(self.low - value, value - self.high, 0.0) / self.tolerance

    def is_met(self, value: float) -> bool:
        """Within the tolerance of a value, or inside a range; never if maximised or minimised."""
        slack = 1.0 if self.low == self.high else 0.0
        return self.goal == "range" and self.distance(value) <= slack

    @property
    def center(self) -> float:
        """The wanted value, the middle of a range, its finite end; 0 if there is none."""
        ends = [end for end in (self.low, self.high) if isfinite(end)]
        return sum(ends) / len(ends) if ends else 0.0

    def describe(self) -> str:
        """As on the command line."""
        if self.goal != "range":
            return f"{self.name}={self.goal[:3]}"
        if self.low == self.high:
            return f"{self.name}={self.low:g}"
        low, high = (f"{end:g}" if isfinite(end) else "" for end in (self.low, self.high))
        return f"{self.name}={low}:{high}"


def parse_target(text: str) -> Target:
    """Read band_gap=1.3, band_gap=1.2:1.5 or bulk_modulus=max, with ~0.1 and *2 behind.

    ``~`` gives the tolerance, ``*`` the weight; an end of a range may be left out ("50:").

    Raises:
        ValueError: If the text is none of these.
    """
    name, equals, rest = text.partition("=")
    rest, _, weight = rest.partition("*")
    wanted, _, tolerance = rest.partition("~")
    try:
        importance, width = float(weight or 1), float(tolerance or 0)
        limits = _limits(wanted) if wanted[:3] not in ("max", "min") else (-inf, inf)
    except ValueError as error:
        raise ValueError(_expected(text)) from error
    if not equals or (limits == (-inf, inf) and wanted[:3] not in ("max", "min")):
        raise ValueError(_expected(text))
    if not tolerance:
        ends = [abs(end) for end in limits if isfinite(end)]
        width = TOLERANCES.get(name) or 0.05 * max(ends, default=0.0) or 1.0
    goals: dict[str, Literal["maximise", "minimise"]] = {"max": "maximise", "min": "minimise"}
    return Target(
        name=name,
        goal=goals.get(wanted[:3], "range"),
        low=limits[0],
        high=limits[1],
        tolerance=width,
        weight=importance,
    )


def score(
    values: Mapping[str, float], targets: Sequence[Target], std: Mapping[str, float] | None = None
) -> float:
    """How near the values come to the targets; higher is better, 0 where all ranges are met.

    Args:
        values: Of the targets at least.
        targets: What is wanted.
        std: Uncertainties; none for names that it lacks.
    """
    gain = {"maximise": 1.0, "minimise": -1.0, "range": 0.0}
    distance = sum(t.weight * t.distance(values[t.name]) ** 2 for t in targets)
    wanted = sum(t.weight * gain[t.goal] * values[t.name] / t.tolerance for t in targets)
    doubt = sum(t.weight * t.caution * (std or {}).get(t.name, 0.0) / t.tolerance for t in targets)
    return wanted - distance - doubt


def squash(value: float) -> float:
    """sign(s) ln(1 + |s|) of a score; -inf stays."""
    return copysign(log1p(abs(value)), value)


def is_hit(values: Mapping[str, float], targets: Sequence[Target]) -> bool:
    """Whether every target with a value or range is met, and there is one."""
    ranges = [target for target in targets if target.goal == "range"]
    return bool(ranges) and all(target.is_met(values[target.name]) for target in ranges)


def _limits(wanted: str) -> tuple[float, float]:
    low, colon, high = wanted.partition(":")
    if not colon:
        return float(low), float(low)
    return float(low) if low else -inf, float(high) if high else inf


def _expected(text: str) -> str:
    return (
        f"a target must be NAME=VALUE, NAME=LOW:HIGH, NAME=max or NAME=min, with ~TOLERANCE and "
        f"*WEIGHT behind if wanted, got {text!r}"
    )
