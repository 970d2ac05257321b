"""Descriptors of a whole structure: tier T0 (composition) and tier T1 (tight binding)."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import ElectronicStructure, atomic_features, tight_binding

Array = NDArray[np.float64]
_STATISTICS = ("mean", "std", "min", "max")


def composition_features(atoms: Atoms) -> Array:
    """Mean, standard deviation, least and largest of each T0 descriptor over the atoms, (76,)."""
    return _statistics(atomic_features()[atoms.numbers])


def electronic_features(atoms: Atoms) -> dict[str, float]:
    """Numbers that the full tight-binding Hamiltonian gives for a structure, none extensive.

    The real-space moments are left out: the property model has them.
    """
    result = tight_binding(atoms)
    n_atoms = len(atoms)
    graph = {
        "soft_gap": float(result.soft_gap),
        "band_gap": float(result.band_gap),
        "fermi_level": float(result.fermi_level),
        "band_energy_shift": float(result.band_energy_shift) / n_atoms,
        "bond_energy": float(result.bond_energies.sum()) / n_atoms,
        "largest_bond_order": max(result.bond_orders.tolist(), default=0.0),
    }
    columns = _atom_columns(result)
    names = [f"{column}_{statistic}" for statistic in _STATISTICS for column in columns]
    values = _statistics(np.stack(list(columns.values()), axis=1))
    return graph | dict(zip(names, values.tolist(), strict=True))


def _atom_columns(result: ElectronicStructure) -> dict[str, Array]:
    """Of each atom, (n_atoms,) each."""
    n_atoms, destination = len(result.charges), result.graph.edge_index[1].numpy()
    orders, energies = (
        np.bincount(destination, weights=values.numpy(), minlength=n_atoms)
        for values in (result.bond_orders, result.bond_energies)
    )
    populations = result.populations.numpy()
    return {
        "charge": result.charges.numpy(),
        "fermi_offset": result.fermi_offset.numpy(),
        "s": populations[:, 0],
        "p": populations[:, 1],
        "d": populations[:, 2],
        "valence": orders,
        "bond_energy": energies,
    }


def _statistics(values: Array) -> Array:
    """`_STATISTICS` of the columns of (n, n_columns), one after the other."""
    return np.concatenate([getattr(values, name)(axis=0) for name in _STATISTICS])
