"""Tier T1, full form: the tight-binding Hamiltonian of `tight_binding.py`, diagonalised.

Orthogonal s, p and d orbitals with the levels of the free atoms and Harrison's hoppings, not
self-consistent: charges are too large, gaps are trends. H and He have an s orbital only; d takes
part in groups 2 to 12 and the f block. The 4f electrons of a lanthanide beyond three valence
electrons are core, the 5f electrons of an actinide go to d.

    H_k,ij = eps_i delta_ij + sum_S V_ij(S) e^(ik S),   P_k = f(H_k),
    D_ij(S) = 2 sum_k w_k Re(P_k,ij e^(-ik S))

From the real-space density matrix D: populations D_ii(0), bond energies tr(D_ij V_ij^T) and Wiberg
bond orders sum_ab (D_ij)_ab^2 of an edge. Trace of D = electrons; band energy = on-site energies
plus bond energies. The soft gap mu(N + 0.1 n_atoms) - mu(N - 0.1 n_atoms) is smooth in positions
and the same for a supercell on the commensurate mesh.

No model uses the full form: beyond composition it explains 1.3 % (0.1-2.5) of the error of the
property model's band gaps, which has the local form (`qdgnn bench-t1`); it is for users and labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph, envelope
from qdgnn_ase.quantum.atomic import N_ELEMENTS, atomic_table
from qdgnn_ase.quantum.bloch import Layout
from qdgnn_ase.quantum.density import density_matrix
from qdgnn_ase.quantum.kpoints import Mesh, kpoint_mesh
from qdgnn_ase.quantum.slater_koster import SHELL_OF_ORBITAL, slater_koster
from qdgnn_ase.quantum.tight_binding import (
    HOPPINGS,
    TightBinding,
    shell_amplitudes,
    shell_levels,
)

Array = NDArray[np.float64]

CUTOFF = 6.0
"""Å; edges reach so far."""
SWITCH = (1.0, 1.5)
"""Sums of two covalent radii between which the hoppings are switched off: Harrison's are those of
nearest neighbours. Large atoms are switched off over the last `LAST` of the cutoff."""
LAST = 1.5
"""Å."""
TEMPERATURE = 0.15
"""k_B T of the Fermi function in eV: it hides how coarse the mesh is."""
GAP_ELECTRONS = 0.1
"""Electrons per atom that are added and taken away for the soft gap."""


@dataclass(frozen=True, slots=True, eq=False)
class ElectronicStructure:
    """What the tight-binding Hamiltonian of a batch of structures says; all float64."""

    charges: Tensor
    """(n_atoms,), e; Mulliken charges, positive where electrons are missing."""
    populations: Tensor
    """(n_atoms, 3), electrons in s, p and d."""
    site_energies: Tensor
    """(n_atoms,), eV; populations times levels."""
    bond_energies: Tensor
    """(n_edges,), eV; an edge's half of its bond, negative where it binds."""
    bond_orders: Tensor
    """(n_edges,); Wiberg order of the bond, the same on both of its edges."""
    moments: Tensor
    """(n_atoms, 6), real-space moments, columns as in `qdgnn_ase.quantum.tight_binding.MOMENTS`."""
    band_energy: Tensor
    """(n_graphs,), eV; sum of occupied levels = sum of site and bond energies."""
    band_energy_shift: Tensor
    """(n_graphs,), eV; band energy less that of the free atoms, negative where it binds."""
    electrons: Tensor
    """(n_graphs,), valence electrons."""
    fermi_level: Tensor
    """(n_graphs,), eV; chemical potential on the scale of the free atoms' levels, vacuum = 0."""
    fermi_offset: Tensor
    """(n_atoms,), eV; Fermi level above the mean level of the atom's valence electrons."""
    soft_gap: Tensor
    """(n_graphs,), eV; mu(N + 0.1 n_atoms) - mu(N - 0.1 n_atoms). Where the basis has no room for
    more electrons (noble gases) they go to the vacuum level."""
    band_gap: Tensor
    """(n_graphs,), eV; conduction band minimum less valence band maximum on the mesh, 0 in a metal
    and with an odd number of electrons; carries no gradient."""
    graph: AtomGraph
    """The batch with the edges that bonds belong to: ``edge_index`` [j, i] and ``edge_shift``."""


class TightBindingBands(nn.Module):
    """Charges, bonds and levels of a batch of structures, differentiable in positions and cell.

    Args:
        cutoff: Å, that of the graphs.
        temperature: k_B T of the Fermi function, eV.
        learnable: Whether scales of the levels (by shell) and hoppings (by kind) are parameters,
            1 at the start.
    """

    levels: Tensor
    valence: Tensor
    radii: Tensor
    orbitals: Tensor

    def __init__(
        self,
        cutoff: float = CUTOFF,
        temperature: float = TEMPERATURE,
        learnable: bool = False,
    ) -> None:
        super().__init__()
        if not LAST < cutoff < np.inf:
            raise ValueError(f"cutoff must be larger than {LAST} Å, got {cutoff}")
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature must be larger than 0 eV, got {temperature}")
        self.cutoff, self.temperature = cutoff, temperature
        self.local = TightBinding()
        kinds = [_kind(name) for name in HOPPINGS]
        self.kinds = sorted(set(kinds))
        self.columns = [self.kinds.index(kind) for kind in kinds]
        self.log_level_scale = nn.Parameter(torch.zeros(3)) if learnable else None
        self.log_hopping_scale = nn.Parameter(torch.zeros(len(self.kinds))) if learnable else None
        valence, levels = valence_electrons(), shell_levels()
        tables = {
            "levels": levels,
            "valence": valence,
            "radii": np.append(np.nan, atomic_table()["covalent_radius_angstrom"]),
            "orbitals": (shell_amplitudes() > 0)[:, SHELL_OF_ORBITAL],
        }
        for name, values in tables.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, graph: AtomGraph, meshes: list[Mesh] | None = None) -> ElectronicStructure:
        """Electronic structures of a batch.

        Args:
            graph: Batch, with all edges up to the cutoff.
            meshes: k-points along the axes of each structure, by `kpoint_mesh` if not given. A
                derivative is that at a fixed mesh.

        Raises:
            ValueError: If an element lies beyond the table or the meshes are not one a structure.
        """
        _check_numbers(graph)
        if meshes is None:
            meshes = [kpoint_mesh(*pair) for pair in zip(graph.cell, graph.pbc, strict=True)]
        if len(meshes) != graph.n_graphs:
            raise ValueError(f"meshes must be {graph.n_graphs}, one a structure, got {len(meshes)}")
        blocks, moments = self._blocks(graph)
        levels = self._scaled_levels()[graph.numbers]
        parts = [
            self._solve(graph, index, blocks, levels, mesh) for index, mesh in enumerate(meshes)
        ]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return ElectronicStructure(**joined, moments=moments, graph=graph)

    def _blocks(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Hopping matrices (n_edges, 9, 9) in eV and moments (n_atoms, 6)."""
        vector = graph.edge_vectors().double()
        distance = vector.norm(dim=1, keepdim=True)
        source, destination = graph.edge_index
        numbers = graph.numbers[destination], graph.numbers[source]
        hoppings = self.local.hoppings(distance, self._switch(distance, *numbers), *numbers)
        if self.log_hopping_scale is not None:
            hoppings = hoppings * self.log_hopping_scale.double().exp()[self.columns]
        unit = vector / distance
        terms = self.local.edge_terms(hoppings, unit, *numbers)
        sums = terms.new_zeros(len(graph.numbers), terms.shape[1]).index_add(0, destination, terms)
        d_matrices = (self.local.quadrupole / 1.5**0.5).view(5, 3, 3)
        return slater_koster(hoppings, unit, d_matrices.double()), self.local.moments(sums)

    def _switch(self, distance: Tensor, numbers_i: Tensor, numbers_j: Tensor) -> Tensor:
        """1 to 0 with two continuous derivatives, (n_edges, 1)."""
        size = (self.radii[numbers_i] + self.radii[numbers_j])[:, None]
        inner, outer = (factor * size for factor in SWITCH)
        inner, outer = inner.clamp(max=self.cutoff - LAST), outer.clamp(max=self.cutoff)
        return envelope((distance - inner).clamp(min=0.0), outer - inner)

    def _scaled_levels(self) -> Tensor:
        """(95, 3), eV."""
        if self.log_level_scale is None:
            return self.levels
        return self.levels * self.log_level_scale.double().exp()

    def _solve(
        self, graph: AtomGraph, index: int, blocks: Tensor, levels: Tensor, mesh: Mesh
    ) -> dict[str, Tensor]:
        """Fields of one structure of the batch but for the moments."""
        atoms = graph.batch == index
        edges = atoms[graph.edge_index[1]]
        edge_index = graph.edge_index[:, edges] - torch.nonzero(atoms)[0]
        numbers, blocks, levels = graph.numbers[atoms], blocks[edges], levels[atoms].double()
        layout = Layout.of(self.orbitals[numbers], edge_index, graph.edge_shift[edges], mesh)
        hamiltonian = layout.hamiltonian(blocks, levels[:, SHELL_OF_ORBITAL])
        valence = self.valence[numbers].double()
        electrons, vacuum = _electrons(valence, layout.n_orbitals)
        density, mu, bands = density_matrix(
            hamiltonian, layout.weights, electrons, self.temperature, vacuum
        )
        bonds, diagonal = layout.density(density)
        populations = diagonal @ _SHELL_SUMS.to(diagonal)
        site_energies, bond_energies = (populations * levels).sum(1), (bonds * blocks).sum((1, 2))
        band_energy = site_energies.sum() + bond_energies.sum()
        free = (valence * levels).sum(1)
        return {
            "charges": (valence - populations).sum(1),
            "populations": populations,
            "site_energies": site_energies,
            "bond_energies": bond_energies,
            "bond_orders": bonds.square().sum((1, 2)),
            "band_energy": band_energy[None],
            "band_energy_shift": (band_energy - free.sum())[None],
            "electrons": electrons[:1],
            "fermi_level": mu[:1],
            "fermi_offset": mu[0] - free / valence.sum(1),
            "soft_gap": mu[1:2] - mu[2:],
            "band_gap": _band_gap(bands, float(electrons[0]))[None],
        }


_SHELL_SUMS = torch.nn.functional.one_hot(torch.tensor(SHELL_OF_ORBITAL), 3)
"""(9, 3), sums orbitals to shells."""


def valence_electrons() -> Array:
    """Electrons of each free atom in s, p and d, (95, 3); row 0 NaN."""
    table = atomic_table()
    electrons = np.stack([table[f"n_{shell}"] for shell in "spd"], axis=1)
    z = np.arange(1, N_ELEMENTS + 1)
    lanthanide = (z > 57) & (z < 71)
    electrons[:, 2] += np.where(lanthanide, 0.0, table["n_f"])
    electrons[lanthanide, 2] = 1.0
    return np.vstack([np.full((1, 3), np.nan), electrons])


def _electrons(valence: Tensor, n_orbitals: int) -> tuple[Tensor, float]:
    """Neutral, with electrons added and taken away, (3,); and vacuum levels to take them in.

    Vacuum levels are there if the orbitals have no room, one an atom: a supercell gives the same.
    """
    total, extra = valence.sum(), GAP_ELECTRONS * len(valence)
    electrons = total + total.new_tensor([0.0, extra, -extra])
    return electrons, float(len(valence)) if total + extra >= 2 * n_orbitals else 0.0


def _kind(name: str) -> str:
    """Kind of an integral, which it shares with its mirror image: sp_sigma for ps_sigma too."""
    return "".join(sorted(name[:2], key="spd".index)) + name[2:]


def _band_gap(levels: Tensor, electrons: float) -> Tensor:
    """From levels (n_k, n) in eV; at most to the vacuum level where there is no conduction band."""
    if electrons % 2:
        return levels.new_zeros(())
    filled = round(electrons / 2)
    conduction = levels[:, filled].min() if filled < levels.shape[1] else levels.new_zeros(())
    return (conduction - levels[:, filled - 1].max()).clamp(min=0.0)


def _check_numbers(graph: AtomGraph) -> None:
    beyond = sorted({z for z in graph.numbers.tolist() if z > N_ELEMENTS})
    if beyond:
        raise ValueError(f"atomic numbers must lie in 1..{N_ELEMENTS}, got {beyond}")
