"""Full tight binding against chains, molecules and crystals solved by hand, and its invariances."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation
from torch import Tensor

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.quantum.bands import (
    CUTOFF,
    ElectronicStructure,
    TightBindingBands,
    valence_electrons,
)
from qdgnn_ase.quantum.bloch import Layout
from qdgnn_ase.quantum.kpoints import Mesh, kpoint_mesh
from qdgnn_ase.quantum.slater_koster import SHELL_OF_ORBITAL
from qdgnn_ase.quantum.tight_binding import HOPPINGS, shell_levels

ATOM_FIELDS = ("charges", "populations", "site_energies", "moments", "fermi_offset")
PER_ATOM = ("band_energy", "band_energy_shift", "electrons")
LEVELS = ("fermi_level", "soft_gap", "band_gap")


def graph_of(atoms: Atoms) -> AtomGraph:
    return from_atoms(atoms, CUTOFF, torch.float64)


def solve(atoms: Atoms, mesh: Mesh | None = None, temperature: float = 0.15) -> ElectronicStructure:
    model = TightBindingBands(temperature=temperature)
    result: ElectronicStructure = model(graph_of(atoms), None if mesh is None else [mesh])
    return result


def integrals(atoms: Atoms) -> dict[str, float]:
    """Hoppings of the shortest bond in eV."""
    model, graph = TightBindingBands(), graph_of(atoms)
    distance = graph.edge_vectors().norm(dim=1, keepdim=True)
    k = int(distance.argmin())
    z = graph.numbers[graph.edge_index[:, k]].flip(0).split(1)
    d = distance[k : k + 1]
    values = model.local.hoppings(d, model._switch(d, *z), *z)[0].tolist()
    return dict(zip(HOPPINGS, values, strict=True))


def levels_at(atoms: Atoms, mesh: Mesh) -> Tensor:
    """Levels at every k of half a mesh, (n_k, n)."""
    return torch.linalg.eigvalsh(hamiltonian(graph_of(atoms), mesh))


def hamiltonian(graph: AtomGraph, mesh: Mesh) -> Tensor:
    model = TightBindingBands()
    layout = Layout.of(model.orbitals[graph.numbers], graph.edge_index, graph.edge_shift, mesh)
    levels = model.levels[graph.numbers][:, SHELL_OF_ORBITAL]
    return layout.hamiltonian(model._blocks(graph)[0], levels)


def chain(n: int = 1, step: float = 0.6) -> Atoms:
    atoms = Atoms(f"H{n}", [[0, 0, step * k] for k in range(n)], cell=[9, 9, step * n])
    atoms.pbc = (False, False, True)
    return atoms


def close(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(first, second, atol=tolerance, rtol=0)


# Solved by hand


def test_chain_of_s_orbitals() -> None:
    """e(k) = eps + 2 V cos k."""
    eps, v = shell_levels()[1, 0], integrals(chain())["ss_sigma"]
    angles = 2 * np.pi * np.arange(6) / 10
    want = eps + 2 * v * np.cos(angles)
    close(levels_at(chain(), (1, 1, 10)).flatten(), torch.tensor(want))


def test_half_filled_chain() -> None:
    """Bond order (2 / pi)^2 of neighbours, energy 4 V / pi an atom, Fermi level eps, no gap."""
    eps, v = shell_levels()[1, 0], integrals(chain())["ss_sigma"]
    result = solve(chain(), mesh=(1, 1, 800), temperature=0.02)
    first = result.graph.edge_vectors().norm(dim=1) < 0.7
    np.testing.assert_allclose(result.bond_orders[first], (2 / np.pi) ** 2, atol=1e-5)
    assert result.band_energy_shift.item() == pytest.approx(4 * v / np.pi, rel=1e-5)
    assert result.fermi_level.item() == pytest.approx(eps, abs=1e-9)
    assert result.band_gap.item() == 0.0


def test_alternating_chain_opens_a_gap() -> None:
    """Peierls: 2 |V1 - V2| at the zone boundary."""
    atoms = chain(2)
    atoms.positions[1, 2] += 0.05
    short, long = (integrals(chain(step=d))["ss_sigma"] for d in (0.55, 0.65))
    gap = solve(atoms, mesh=(1, 1, 20)).band_gap.item()
    assert gap == pytest.approx(2 * abs(short - long), rel=1e-9)


def test_hydrogen_molecule() -> None:
    """Levels eps +- V, bond energy 2 V, bond order 1, no charge."""
    eps, v = shell_levels()[1, 0], integrals(molecule("H2"))["ss_sigma"]
    result = solve(molecule("H2"))
    close(result.band_energy, torch.tensor([2 * (eps + v)]))
    close(result.bond_energies, torch.tensor([v, v], dtype=torch.float64))
    close(result.bond_orders, torch.ones(2).double())
    close(result.charges, torch.zeros(2).double())
    assert result.band_gap.item() == pytest.approx(-2 * v)


@pytest.mark.parametrize(("name", "order"), [("N2", 3.0), ("C2H4", 2.0), ("C2H6", 1.0)])
def test_bond_orders_of_molecules(name: str, order: float) -> None:
    result = solve(molecule(name))
    assert result.bond_orders.max().item() == pytest.approx(order, abs=0.05)


def test_ionic_dimer() -> None:
    """Two s levels: charge from the eigenvector (Li has p, so He with H)."""
    atoms = Atoms("HHe", [[0, 0, 0], [0, 0, 0.8]])
    eps, v = shell_levels()[[1, 2], 0], integrals(atoms)["ss_sigma"]
    levels, vectors = np.linalg.eigh(np.array([[eps[0], v], [v, eps[1]]]))
    result = solve(atoms)  # three electrons
    want = 1 - (2 * vectors[0, 0] ** 2 + vectors[0, 1] ** 2)
    assert result.charges[0].item() == pytest.approx(want, abs=1e-9)
    assert result.charges.sum().item() == pytest.approx(0.0, abs=1e-12)
    assert result.band_energy.item() == pytest.approx(2 * levels[0] + levels[1])


def test_diamond_at_gamma() -> None:
    """eps_s +- 4 V_ss and threefold eps_p +- 4/3 (V_pp_sigma + 2 V_pp_pi)."""
    atoms = bulk("C", "diamond", a=3.4)
    v, (s, p, _) = integrals(atoms), shell_levels()[6]
    width = 4 / 3 * (v["pp_sigma"] + 2 * v["pp_pi"])
    want = [s + 4 * v["ss_sigma"], s - 4 * v["ss_sigma"], *[p + width] * 3, *[p - width] * 3]
    close(levels_at(atoms, (1, 1, 1))[0], torch.tensor(sorted(want)))


def test_pi_bands_of_graphene() -> None:
    """eps_p +- 3 V_pp_pi at Gamma; they meet at K, where (1/3, 2/3) is on a mesh of 3."""
    atoms = graphene(a=2.46, vacuum=6.0)
    atoms.pbc = (True, True, False)
    eps, v = shell_levels()[6, 1], integrals(atoms)["pp_pi"]
    levels = levels_at(atoms, (3, 3, 1))
    for want in (eps + 3 * v, eps - 3 * v):
        assert (levels[0] - want).abs().min().item() < 1e-9
    met = ((levels - eps).abs() < 1e-9).sum(dim=1)
    assert met.max().item() == 2
    gaps = [solve(atoms, mesh=(n, n, 1)).band_gap.item() for n in (3, 4)]
    assert gaps[0] < 1e-9 < 0.5 < gaps[1]


# Against brute force and sum rules


def brute_force(atoms: Atoms, mesh: Mesh, temperature: float) -> dict[str, np.ndarray]:
    """Every k of the mesh, phases from the images, occupations by root finding."""
    graph, model = graph_of(atoms), TightBindingBands()
    blocks = model._blocks(graph)[0].numpy()
    used = model.orbitals[graph.numbers].numpy().flatten()
    levels = model.levels[graph.numbers][:, SHELL_OF_ORBITAL].numpy().flatten()
    points = [np.array(k) / mesh for k in np.ndindex(*mesh)]
    solved = []
    for k in points:
        h = np.diag(levels).astype(complex)
        for e, (j, i) in enumerate(graph.edge_index.T.tolist()):
            phase = np.exp(2j * np.pi * k @ graph.edge_shift[e].numpy())
            h[9 * i : 9 * i + 9, 9 * j : 9 * j + 9] += phase * blocks[e]
        solved.append(np.linalg.eigh(h[used][:, used]))
    bands = np.array([e for e, _ in solved])

    def filling(mu: float) -> np.ndarray:
        return 1 / (1 + np.exp((bands - mu) / temperature))

    total = float(valence_electrons()[atoms.numbers].sum())
    extra = 0.1 * len(atoms)
    mu, high, low = (
        brentq(lambda m, n=n: 2 * filling(m).sum() / len(points) - n, -80, 80, xtol=1e-13)
        for n in (total, total + extra, total - extra)
    )
    f = filling(mu)
    shares = sum(2 * f[k] @ (abs(v) ** 2).T for k, (_, v) in enumerate(solved)) / len(points)
    atom = np.repeat(np.arange(len(atoms)), 9)[used]
    return {
        "band_energy": np.array([2 * (f * bands).sum() / len(points)]),
        "fermi_level": np.array([mu]),
        "soft_gap": np.array([high - low]),
        "charges": valence_electrons()[atoms.numbers].sum(1) - np.bincount(atom, shares),
    }


@pytest.mark.parametrize(
    ("name", "mesh"),
    [("perovskite", (2, 2, 2)), ("triclinic", (3, 4, 1)), ("long_skew", (4, 2, 3))],
)
def test_brute_force(structures: dict[str, Atoms], name: str, mesh: Mesh) -> None:
    result = solve(structures[name], mesh=mesh, temperature=0.3)
    for field, want in brute_force(structures[name], mesh, 0.3).items():
        np.testing.assert_allclose(getattr(result, field), want, atol=1e-8, err_msg=field)


def test_sum_rules(structure: Atoms) -> None:
    if len(structure) > 30:
        structure = structure[:12]
    result = solve(structure)
    close(result.populations.sum(), result.electrons[0])
    close(result.charges.sum(), torch.zeros(()).double())
    close(result.band_energy[0], result.site_energies.sum() + result.bond_energies.sum())
    assert bool((result.populations > -1e-9).all())
    room = torch.tensor([2.0, 6.0, 10.0]).double()
    assert bool((result.populations < room + 1e-9).all())
    for field in fields(result):
        value = getattr(result, field.name)
        assert not isinstance(value, Tensor) or bool(torch.isfinite(value).all()), field.name


def test_the_two_edges_of_a_bond_are_equal() -> None:
    result = solve(bulk("NaCl", "rocksalt", a=5.6) * (1, 1, 2))
    source, destination = result.graph.edge_index
    order = {
        (i, j, *s): k
        for k, (i, j, s) in enumerate(
            zip(
                destination.tolist(),
                source.tolist(),
                result.graph.edge_shift.int().tolist(),
                strict=True,
            )
        )
    }
    back = torch.tensor([order[j, i, *(-x for x in s)] for i, j, *s in order])
    close(result.bond_orders, result.bond_orders[back])
    close(result.bond_energies, result.bond_energies[back])


# Invariances


def same(result: ElectronicStructure, other: ElectronicStructure, tolerance: float = 1e-9) -> None:
    for name in (*ATOM_FIELDS, *PER_ATOM, *LEVELS):
        close(getattr(result, name), getattr(other, name), tolerance)


@pytest.mark.parametrize("name", ["perovskite", "triclinic", "mirrored", "slab_tilted_vacuum"])
def test_rotation_wrap_and_translation(structures: dict[str, Atoms], name: str) -> None:
    atoms = structures[name]
    result = solve(atoms)
    turned, matrix = atoms.copy(), Rotation.random(random_state=3).as_matrix()
    turned.set_cell(atoms.cell.array @ matrix.T)
    turned.positions = atoms.positions @ matrix.T
    same(solve(turned), result)
    moved = atoms.copy()
    images = np.random.default_rng(0).integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += images @ atoms.cell.array + [0.3, -0.2, 0.1]
    same(solve(moved), result)


def test_permutation(structures: dict[str, Atoms]) -> None:
    atoms = structures["perovskite"]
    order = [3, 0, 4, 1, 2]
    result, other = solve(atoms), solve(atoms[order])
    for name in ATOM_FIELDS:
        close(getattr(other, name), getattr(result, name)[order])
    close(other.soft_gap, result.soft_gap)


@pytest.mark.parametrize(
    ("atoms", "mesh", "repeats"),
    [
        (bulk("Si"), (4, 4, 4), (2, 2, 2)),
        (bulk("Cu"), (4, 4, 4), (2, 2, 1)),
        (bulk("NaCl", "rocksalt", a=5.6), (2, 4, 2), (1, 2, 2)),
    ],
)
def test_supercell(atoms: Atoms, mesh: Mesh, repeats: Mesh) -> None:
    """On commensurate meshes all intensive numbers are those of the cell."""
    n = int(np.prod(repeats))
    reduced = tuple(k // r for k, r in zip(mesh, repeats, strict=True))
    result, large = solve(atoms, mesh=mesh), solve(atoms * repeats, mesh=reduced)
    for name in ("fermi_level", "soft_gap"):
        close(getattr(large, name), getattr(result, name), 1e-6)
    for name in ATOM_FIELDS:
        value = getattr(result, name)
        close(getattr(large, name), value.repeat(n, *[1] * (value.ndim - 1)), 1e-6)
    for name in PER_ATOM:
        close(getattr(large, name), n * getattr(result, name), 1e-6)
    if len(atoms) > 1:
        close(large.band_gap, result.band_gap, 1e-6)


def test_supercell_on_another_mesh_differs() -> None:
    """Negative control: the test of supercells sees the mesh."""
    large = solve(bulk("Si") * 2, mesh=(1, 1, 1)).soft_gap
    assert abs(large - solve(bulk("Si")).soft_gap).item() > 0.1


def test_default_meshes_are_commensurate_for_silicon() -> None:
    close(solve(bulk("Si") * 2).soft_gap, solve(bulk("Si")).soft_gap, 1e-6)


def test_batch_equals_singles(structures: dict[str, Atoms]) -> None:
    names = ("perovskite", "water", "lone_atom", "slab_two_vectors")
    graphs = [graph_of(structures[name]) for name in names]
    together = TightBindingBands()(collate(graphs))
    singles = [TightBindingBands()(graph) for graph in graphs]
    for field in fields(together):
        if field.name != "graph":
            parts = [getattr(single, field.name) for single in singles]
            close(getattr(together, field.name), torch.cat(parts))


# Derivatives


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("C", "diamond", a=3.57),
        bulk("NaCl", "rocksalt", a=5.2),
        bulk("Fe"),
        bulk("TiO", "rocksalt", a=4.2),
        molecule("C2H4"),
        Atoms("Ti"),
    ],
    ids=lambda atoms: str(atoms.symbols),
)
def test_derivatives_against_finite_differences(atoms: Atoms) -> None:
    """Positions and strain; levels of the cubic crystals are degenerate."""
    graph = graph_of(atoms)
    mesh = [(2, 2, 2) if atoms.pbc.all() else (1, 1, 1)]
    model = TightBindingBands()

    def outputs(displacement: Tensor, strain: Tensor) -> Tensor:
        deform = torch.eye(3).double() + strain
        moved = replace(
            graph,
            positions=(graph.positions + displacement) @ deform,
            cell=graph.cell @ deform,
        )
        result = model(moved, mesh)
        mixed = [
            (value * torch.randn(value.shape, generator=torch.manual_seed(k)).double()).sum()
            for k, value in enumerate(
                getattr(result, field.name)
                for field in fields(result)
                if field.name not in ("graph", "band_gap", "electrons", "moments")
            )
        ]
        return torch.stack(mixed)

    point = torch.zeros(len(atoms), 3).double(), torch.zeros(3, 3).double()
    for x in point:
        x.requires_grad_(True)
    assert torch.autograd.gradcheck(outputs, point, eps=1e-5, atol=1e-5, rtol=1e-4)


def test_forces_of_a_symmetric_crystal_are_zero() -> None:
    graph = graph_of(bulk("Si"))
    graph = replace(graph, positions=graph.positions.requires_grad_(True))
    result = TightBindingBands()(graph)
    for value in (result.band_energy, result.soft_gap, result.fermi_level):
        (gradient,) = torch.autograd.grad(value.sum(), graph.positions, retain_graph=True)
        close(gradient, torch.zeros_like(gradient), 1e-9)


def test_smooth_where_neighbours_come_and_go() -> None:
    """The switch ends before the edges do."""
    energies = [solve(Atoms("Cs2", [[0, 0, 0], [0, 0, CUTOFF + x]])) for x in (-1e-4, 1e-4)]
    assert abs(energies[0].band_energy - energies[1].band_energy).item() < 1e-9


def test_scales_can_be_learned() -> None:
    """Derivatives reach them; without the option there is nothing to learn or to store."""
    graph = graph_of(bulk("NaCl", "rocksalt", a=5.2))
    plain, model = TightBindingBands(), TightBindingBands(learnable=True)
    assert not list(plain.parameters())
    assert not plain.state_dict()
    same(model(graph), plain(graph))
    model(graph).soft_gap.sum().backward()
    assert set(model.state_dict()) == {"log_level_scale", "log_hopping_scale"}
    assert all(bool((p.grad != 0).any()) for p in model.parameters())
    with torch.no_grad():
        model.log_level_scale += 0.1
        model.log_hopping_scale += 0.1
    close(model(graph).band_energy, plain(graph).band_energy * np.exp(0.1), 0.2)


# Elements and limits


def test_valence_electrons() -> None:
    electrons = valence_electrons()
    for z, want in {
        1: (1, 0, 0),
        8: (2, 4, 0),
        29: (1, 0, 10),
        31: (2, 1, 0),
        60: (2, 0, 1),
    }.items():
        assert tuple(electrons[z]) == want
    assert electrons[92].sum() == 6
    assert np.isnan(electrons[0]).all()


def test_every_element_alone_and_in_a_crystal() -> None:
    for z in range(1, 95):
        free = solve(Atoms([z]))
        close(free.charges, torch.zeros(1).double())
        close(free.band_energy_shift, free.site_energies.sum()[None] - _free_energy(z))
        crystal = solve(Atoms([z], cell=[2.9, 2.9, 2.9], pbc=True), mesh=(2, 2, 2))
        for name in (*LEVELS, "band_energy_shift"):
            assert bool(torch.isfinite(getattr(crystal, name)).all()), (z, name)


def _free_energy(z: int) -> float:
    return float((valence_electrons()[z] * shell_levels()[z]).sum())


@pytest.mark.parametrize("symbol", ["He", "Ne", "Ar", "Xe"])
def test_noble_gases_have_the_vacuum_as_conduction_band(symbol: str) -> None:
    """No orbital is free; ionised from the highest level."""
    atoms = Atoms(symbol, cell=[9, 9, 9], pbc=True)
    result = solve(atoms)
    top = np.nanmax(shell_levels()[atoms.numbers[0], : 1 if symbol == "He" else 2])
    assert result.band_gap.item() == pytest.approx(-top)
    assert result.soft_gap.item() == pytest.approx(-top, abs=1.2)  # kT ln of holes and electrons
    large = solve(atoms * (1, 1, 2))
    close(large.soft_gap, result.soft_gap, 1e-6)


def test_trends() -> None:
    """Gaps of real crystals in the right order; charges of the right sign."""
    crystals = {
        "Si": bulk("Si"),
        "C": bulk("C", "diamond", a=3.567),
        "MgO": bulk("MgO", "rocksalt", a=4.21),
        "Cu": bulk("Cu"),
        "Al": bulk("Al"),
    }
    results = {name: solve(atoms) for name, atoms in crystals.items()}
    gaps = {name: result.band_gap.item() for name, result in results.items()}
    assert gaps["Cu"] == gaps["Al"] == 0.0
    assert 0.5 < gaps["Si"] < 3.0 < gaps["C"]
    assert gaps["MgO"] > 5.0
    assert results["MgO"].charges[0].item() > 0.5


def test_wrong_arguments() -> None:
    graph = graph_of(bulk("Si"))
    with pytest.raises(ValueError, match="temperature must be larger than 0"):
        TightBindingBands(temperature=0.0)
    with pytest.raises(ValueError, match="cutoff must be larger"):
        TightBindingBands(cutoff=1.0)
    with pytest.raises(ValueError, match="meshes must be 1"):
        TightBindingBands()(graph, [(1, 1, 1)] * 2)
    heavy = replace(graph, numbers=torch.tensor([14, 100]))
    with pytest.raises(ValueError, match=r"1\.\.94, got \[100\]"):
        TightBindingBands()(heavy)


def test_a_shorter_cutoff() -> None:
    """A model's own graph will do: nothing jumps at its end either."""
    model = TightBindingBands(cutoff=4.0)
    energies = []
    for distance in (4.0 - 1e-4, 4.0 + 1e-4):
        atoms = Atoms("Cs2", [[0, 0, 0], [0, 0, distance]])
        energies.append(model(from_atoms(atoms, 4.0, torch.float64)).band_energy)
    close(energies[0], energies[1])


def test_a_model_in_single_precision_solves_in_double() -> None:
    graph = graph_of(bulk("MgO", "rocksalt", a=4.2))
    result = TightBindingBands().float()(graph.to(dtype=torch.float32))
    assert result.soft_gap.dtype == torch.float64
    want = TightBindingBands()(graph)
    for name in ("soft_gap", "charges", "bond_orders"):
        close(getattr(result, name), getattr(want, name), 1e-4)


def test_meshes_by_default_are_those_of_the_cell() -> None:
    atoms = bulk("MgO", "rocksalt", a=4.2)
    graph = graph_of(atoms)
    same(solve(atoms), solve(atoms, mesh=kpoint_mesh(graph.cell[0], graph.pbc[0])), 0.0)


def test_real_structures(real_frames: list[Atoms]) -> None:
    for atoms in real_frames:
        graph = graph_of(atoms)
        graph = replace(graph, positions=graph.positions.requires_grad_(True))
        result = TightBindingBands()(graph)
        total = result.soft_gap + result.bond_orders.sum() + result.charges.square().sum()
        (gradient,) = torch.autograd.grad(total.sum(), graph.positions)
        assert bool(torch.isfinite(gradient).all())
        assert result.charges.sum().item() == pytest.approx(0.0, abs=1e-8)
