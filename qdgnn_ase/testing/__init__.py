"""Contracts as code: what every potential, ASE calculator and descriptor table must fulfil.

A potential is an ``nn.Module``, ``(AtomGraph, edge_vector=None) -> {"energy", "energies", ...}``,
with ``config.cutoff`` in Å. ``check_model``, ``check_calculator`` and ``check_descriptor`` run all
checks of their kind; each single check is public too. All raise :class:`ContractError`, say what
was expected and what came out, need no test framework, and leave their arguments as they are.

Potentials are checked on a float64 copy. Tolerances are absolute and carry their unit in the
message. Finite differences have an error of fourth order in ``STEP``.
"""

from __future__ import annotations

from qdgnn_ase.testing.calculator import (
    check_atoms_unchanged,
    check_cache,
    check_calculator,
    check_calculator_forces,
    check_calculator_stress,
    check_copies,
    check_no_cell,
    check_results,
)
from qdgnn_ase.testing.common import (
    STEP,
    ContractError,
    example_structures,
)
from qdgnn_ase.testing.descriptor import (
    check_descriptor,
)
from qdgnn_ase.testing.model import (
    check_batch,
    check_continuity,
    check_forces,
    check_hessian,
    check_isolated,
    check_model,
    check_net_force,
    check_outputs,
    check_permutation,
    check_rotation,
    check_stress,
    check_supercell,
    check_translation,
    check_unchanged,
    check_wrap,
)

__all__ = [
    "STEP",
    "ContractError",
    "check_atoms_unchanged",
    "check_batch",
    "check_cache",
    "check_calculator",
    "check_calculator_forces",
    "check_calculator_stress",
    "check_continuity",
    "check_copies",
    "check_descriptor",
    "check_forces",
    "check_hessian",
    "check_isolated",
    "check_model",
    "check_net_force",
    "check_no_cell",
    "check_outputs",
    "check_permutation",
    "check_results",
    "check_rotation",
    "check_stress",
    "check_supercell",
    "check_translation",
    "check_unchanged",
    "check_wrap",
    "example_structures",
]
