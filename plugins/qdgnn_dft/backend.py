"""What computes records: DFT codes and tight binding behind one interface, and retries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from qdgnn_dft.bands import band_edges, calculator_edges
from qdgnn_dft.record import Record, record_key, structure_document
from qdgnn_dft.store import ResultStore

log = logging.getLogger(__name__)


class RefusedError(ValueError):
    """A calculation that was not tried, or whose result is not plausible; the reason is told."""


class CalculationError(RuntimeError):
    """All attempts failed; the message holds the reason of each."""


class Backend(Protocol):
    """What turns a structure into a record."""

    @property
    def name(self) -> str:
        """Of the code, for keys and messages."""

    @property
    def n_attempts(self) -> int:
        """Ways to reach the same answer; later ones mix more carefully."""

    def settings(self, atoms: Atoms) -> dict[str, Any]:
        """Everything that determines the values, for the key.

        Raises:
            RefusedError: If the backend does not apply to the structure.
        """

    def compute(self, atoms: Atoms, attempt: int, log_file: Path | None) -> Record:
        """Run it.

        Args:
            atoms: Structure; is not changed.
            attempt: 0 to ``n_attempts - 1``.
            log_file: Where the code's own output goes.
        """


def evaluate(
    atoms: Atoms,
    backend: Backend,
    store: ResultStore | None = None,
    log_file: Path | None = None,
) -> Record:
    """The record of a structure: out of the store, or computed and stored.

    Raises:
        RefusedError: If the backend does not apply, or its result is not plausible.
        CalculationError: If all attempts failed.
    """
    key = record_key(atoms, backend.settings(atoms))
    known = store.get(key) if store else None
    if known:
        return known
    record = _first_success(atoms, backend, log_file)
    if store:
        store.put(record)
    return record


def _first_success(atoms: Atoms, backend: Backend, log_file: Path | None) -> Record:
    reasons: list[str] = []
    for attempt in range(backend.n_attempts):
        try:
            return backend.compute(atoms.copy(), attempt, log_file)
        except (RefusedError, ImportError):  # another attempt would not help
            raise
        except Exception as error:  # codes raise anything; every reason is kept
            reasons.append(f"attempt {attempt + 1}: {error!r}")
            log.info("%s with %s, %s", atoms.symbols, backend.name, reasons[-1])
    raise CalculationError(f"{backend.name} failed for {atoms.symbols}: {'; '.join(reasons)}")


@dataclass(frozen=True)
class CalculatorBackend:
    """Any ASE calculator: VASP, Quantum ESPRESSO, a potential."""

    name: str
    factory: Callable[[], Calculator]
    """Makes the calculator with all its settings."""
    chosen: Mapping[str, Any]
    """Everything that determines the values, for the key; JSON."""
    version: str = "unknown"
    """Of the code."""
    n_attempts: int = 1

    def settings(self, atoms: Atoms) -> dict[str, Any]:
        """The chosen settings and the backend's name."""
        return {"backend": self.name, **self.chosen}

    def compute(self, atoms: Atoms, attempt: int, log_file: Path | None) -> Record:
        """Energy, forces, stress and what else the calculator offers."""
        atoms.calc = self.factory()
        started = process_time()
        values = mechanical_values(atoms) | electronic_values(atoms)
        provenance = {"version": self.version, "cpu_seconds": process_time() - started}
        return make_record(atoms, self.settings(atoms), values, provenance)


def make_record(
    atoms: Atoms,
    settings: Mapping[str, Any],
    values: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Record:
    """A record of finite values.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    for name, value in values.items():
        if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            raise ValueError(f"{name} of {atoms.symbols} must be finite, got {value}")
    return Record(
        structure=structure_document(atoms),
        settings=settings,
        values={name: np.asarray(value).tolist() for name, value in values.items()},
        provenance=provenance,
    )


def mechanical_values(atoms: Atoms) -> dict[str, Any]:
    """Energies, forces and, for a crystal, stress from the attached calculator."""
    atoms.set_constraint()  # a constraint would turn forces into zeros
    values = {
        "energy": float(atoms.get_potential_energy()),
        "forces": np.array(atoms.get_forces(), dtype=np.float64),
    }
    values["free_energy"] = float(atoms.calc.results.get("free_energy", values["energy"]))
    if atoms.pbc.all() and atoms.cell.rank == 3 and _offers(atoms, "stress"):
        values["stress"] = np.array(atoms.get_stress(), dtype=np.float64)
    return values


def electronic_values(atoms: Atoms) -> dict[str, Any]:
    """Band edges, Fermi level, charges and moments, as far as the calculator offers them."""
    calculator, values = atoms.calc, {}
    if hasattr(calculator, "get_eigenvalues"):
        fermi = float(calculator.get_fermi_level())
        eigenvalues, points = calculator_edges(calculator)
        values = {"fermi_level": fermi} | band_edges(eigenvalues, points, fermi)
    for name, property_name in (("charges", "charges"), ("magnetic_moments", "magmoms")):
        if _offers(atoms, property_name):
            values[name] = np.asarray(calculator.get_property(property_name, atoms))
    return values


def _offers(atoms: Atoms, name: str) -> bool:
    """Whether a calculator gives a property; some list it and then refuse."""
    if name not in atoms.calc.implemented_properties:
        return False
    try:
        return atoms.calc.get_property(name, atoms) is not None
    except PropertyNotImplementedError:
        return False


def backend_of(name: str) -> Backend:
    """A backend by name: gpaw, xtb, qdgnn, emt, or ``package.module:function`` that returns one.

    The function may return a `Backend` or an ASE calculator; of a calculator the name and its
    ``parameters`` make the key.

    Raises:
        ValueError: If there is none of that name.
        ImportError: If its extra is not installed.
    """
    if name in _BUILDERS:
        backend: Backend = _BUILDERS[name]()
        return backend
    module, _, function = name.partition(":")
    if not function:
        raise ValueError(
            f"backend must be one of {', '.join(_BUILDERS)} or MODULE:FUNCTION, got {name!r}"
        )
    try:
        factory = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"backend {name!r} must be importable, got: {error}") from error
    made = factory()
    if isinstance(made, Calculator):
        return CalculatorBackend(name, factory, {"parameters": plain(made.parameters)})
    return made  # type: ignore[no-any-return]


def plain(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of a calculator as texts, for a key."""
    return {str(key): repr(value) for key, value in sorted(parameters.items())}


def require(module: str, remedy: str) -> Any:
    """Import an optional library.

    Raises:
        ImportError: One clear error that names the command.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} must be installed, got: {error}; {remedy}") from error


def _gpaw() -> Backend:
    module = import_module("qdgnn_dft.gpaw_backend")
    require("gpaw", module.REMEDY)
    return module.GPAWBackend()  # type: ignore[no-any-return]


def _xtb() -> Backend:
    module = import_module("qdgnn_dft.xtb")
    require("tblite", module.REMEDY)
    return module.XTBBackend()  # type: ignore[no-any-return]


def _qdgnn() -> Backend:
    qdgnn = import_module("qdgnn_ase")
    version = qdgnn.__version__
    return CalculatorBackend(
        "qdgnn", qdgnn.QDGNNCalculator, {"model": "default", "version": version}, version
    )


def _emt() -> Backend:
    module = import_module("ase.calculators.emt")
    return CalculatorBackend("emt", module.EMT, {}, import_module("ase").__version__)


_BUILDERS: dict[str, Callable[[], Backend]] = {
    "gpaw": _gpaw,
    "xtb": _xtb,
    "qdgnn": _qdgnn,
    "emt": _emt,
}
