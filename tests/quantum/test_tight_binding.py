"""Tier T1 against brute force: the full 9 x 9 Slater-Koster blocks of every edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation
from torch import Tensor

from qdgnn_ase.graph import envelope, from_atoms
from qdgnn_ase.nn.segment import segment_sum
from qdgnn_ase.quantum.tight_binding import (
    EDGE_FEATURES,
    HOPPINGS,
    NODE_FEATURES,
    TightBinding,
    shell_amplitudes,
    shell_levels,
)

CUTOFF = 4.5
SHELL_OF = [0, 1, 1, 1, 2, 2, 2, 2, 2]  # s, x, y, z, xy, yz, zx, x2 - y2, 3 z2 - r2


def d_matrices() -> Tensor:
    """The five d functions as traceless symmetric matrices of unit norm, (5, 3, 3)."""
    x, y, z = np.eye(3)
    products = [np.outer(a, b) + np.outer(b, a) for a, b in ((x, y), (y, z), (z, x))]
    products += [np.diag(x - y), np.diag(2 * z - x - y) / 3**0.5]
    return torch.tensor(np.array(products) / 2**0.5)


def frame(unit: Tensor) -> Tensor:
    """A rotation with ``unit`` as its last row, (3, 3)."""
    helper = torch.eye(3, dtype=unit.dtype)[int(unit.abs().argmin())]
    first = torch.linalg.cross(helper, unit)
    first = first / first.norm()
    return torch.stack([first, torch.linalg.cross(unit, first), unit])


def orbital_rotation(rotation: Tensor) -> Tensor:
    """The rotation of the nine orbitals, (9, 9)."""
    d = d_matrices()
    full = torch.zeros(9, 9, dtype=rotation.dtype)
    full[0, 0] = 1.0
    full[1:4, 1:4] = rotation
    full[4:, 4:] = torch.einsum("aij,ki,lj,bkl->ba", d, rotation, rotation, d)
    return full


def block(v: dict[str, float], unit: Tensor) -> Tensor:
    """H_ij (9, 9): in the bond frame diagonal in m, then rotated to the crystal's axes."""
    h = torch.zeros(9, 9, dtype=unit.dtype)
    h[0, 0] = v["ss_sigma"]
    h[0, 3], h[3, 0] = v["sp_sigma"], -v["ps_sigma"]
    h[0, 8], h[8, 0] = v["sd_sigma"], v["ds_sigma"]
    h[1, 1], h[2, 2], h[3, 3] = v["pp_pi"], v["pp_pi"], v["pp_sigma"]
    for p, d in ((1, 6), (2, 5)):  # x with zx, y with yz
        h[p, d], h[d, p] = v["pd_pi"], -v["dp_pi"]
    h[3, 8], h[8, 3] = v["pd_sigma"], -v["dp_sigma"]
    sigma, pi, delta = (v[f"dd_{m}"] for m in ("sigma", "pi", "delta"))
    h[4:, 4:] = torch.diag(h.new_tensor([delta, pi, pi, delta, sigma]))
    rotation = orbital_rotation(frame(unit))
    return rotation.T @ h @ rotation


def features(atoms: Atoms) -> tuple[Tensor, Tensor, Tensor]:
    """Hoppings, moments and node features of a structure in float64."""
    graph, model = from_atoms(atoms, CUTOFF, torch.float64), TightBinding()
    vector = graph.edge_vectors()
    distance = vector.norm(dim=1, keepdim=True)
    source, destination = graph.edge_index
    z_i, z_j = graph.numbers[destination], graph.numbers[source]
    hoppings = model.hoppings(distance, envelope(distance, CUTOFF), z_i, z_j)
    terms = model.edge_terms(hoppings, vector / distance, z_i, z_j)
    sums = segment_sum(terms, destination, len(atoms))
    return hoppings, model.moments(sums), model.node_features(sums)


def brute_force(atoms: Atoms) -> Tensor:
    """The moments from the matrices A_i, (n_atoms, 6)."""
    graph, hoppings = from_atoms(atoms, CUTOFF, torch.float64), features(atoms)[0]
    levels = torch.tensor(shell_levels())[graph.numbers][:, SHELL_OF]
    a = torch.zeros(len(atoms), 9, 9, dtype=torch.float64)
    transfer = torch.zeros(len(atoms), dtype=torch.float64)
    edges = zip(*graph.edge_index.tolist(), graph.edge_vectors(), hoppings.tolist(), strict=True)
    for j, i, vector, values in edges:
        h = block(dict(zip(HOPPINGS, values, strict=True)), vector / vector.norm())
        a[i] += h @ h.T
        transfer[i] += ((levels[j][None, :] - levels[i][:, None]) * h**2).sum()
    p, d = a[:, 1:4, 1:4], a[:, 4:, 4:]
    traces = [torch.einsum("nii->n", matrix) for matrix in (p, p @ p, d, d @ d)]
    return torch.stack([a[:, 0, 0], *traces, transfer], dim=1)


def rotated(atoms: Atoms) -> Atoms:
    turned, matrix = atoms.copy(), Rotation.random(random_state=3).as_matrix()
    turned.set_cell(atoms.cell.array @ matrix.T)
    turned.positions = atoms.positions @ matrix.T
    return turned


def test_blocks_rotate_like_orbitals() -> None:
    """The oracle itself: a block of rotated atoms is the rotated block, and H_ji = H_ij^T."""
    values = dict(zip(HOPPINGS, np.random.default_rng(0).normal(size=14), strict=True))
    unit = torch.tensor(Rotation.random(random_state=1).as_matrix()[0])
    turn = torch.tensor(Rotation.random(random_state=2).as_matrix())
    orbitals = orbital_rotation(turn)
    want = orbitals @ block(values, unit) @ orbitals.T
    torch.testing.assert_close(block(values, turn @ unit), want, rtol=0, atol=1e-12)
    swapped = {name[1::-1] + name[2:]: value for name, value in values.items()}
    torch.testing.assert_close(block(values, unit).T, block(swapped, -unit), rtol=0, atol=1e-12)


def test_moments_equal_brute_force(structure: Atoms) -> None:
    if from_atoms(structure, CUTOFF).n_edges > 300:  # the oracle is slow
        structure = structure[:2]
    torch.testing.assert_close(
        features(structure)[1], brute_force(structure), rtol=1e-10, atol=1e-10
    )


def test_all_shells_are_tested(structures: dict[str, Atoms]) -> None:
    """Negative control of the structures: s-d, p-d and d-d hoppings and delta occur."""
    assert bool((features(structures["perovskite"])[0].abs().amax(dim=0) > 0.01).all())


@pytest.mark.parametrize("name", ["perovskite", "mirrored", "ethanol_in_cell", "long_skew"])
def test_rotation_and_supercell(structures: dict[str, Atoms], name: str) -> None:
    atoms = structures[name]
    wanted = features(atoms)[2]
    torch.testing.assert_close(features(rotated(atoms))[2], wanted, rtol=0, atol=1e-10)
    if atoms.pbc.all():
        torch.testing.assert_close(
            features(atoms * (1, 2, 1))[2], wanted.repeat(2, 1), rtol=0, atol=1e-10
        )


def test_moments_see_angles() -> None:
    """Two atoms at the same distances under 90 and 180 degrees: traces equal, squares not."""
    straight = Atoms("TiO2", [[0, 0, 0], [2, 0, 0], [-2, 0, 0]])
    bent = Atoms("TiO2", [[0, 0, 0], [2, 0, 0], [0, 2, 0]])
    difference = (features(straight)[2] - features(bent)[2])[0].abs()
    changed = {NODE_FEATURES[k] for k in torch.nonzero(difference > 1e-9).flatten()}
    assert changed == {"anisotropy_p", "anisotropy_d"}


def test_swapping_the_atoms_swaps_the_shells() -> None:
    model, distance = TightBinding(), torch.full((1, 1), 2.0, dtype=torch.float64)
    pair = torch.tensor([26]), torch.tensor([8])
    there = model.hoppings(distance, torch.ones_like(distance), *pair)[0]
    back = model.hoppings(distance, torch.ones_like(distance), *reversed(pair))[0]
    names = list(HOPPINGS)
    for column, name in enumerate(names):
        assert there[column] == back[names.index(name[1::-1] + name[2:])]
    assert there[names.index("ds_sigma")] != 0 == there[names.index("sd_sigma")]


def test_harrison_at_long_distance() -> None:
    """V_sp_sigma = 1.42 hbar^2 / (m d^2), V_pd_pi = 1.36 hbar^2 r_d^1.5 / (m d^3.5), ..."""
    model, d = TightBinding(), 40.0
    distance = torch.full((1, 1), d, dtype=torch.float64)
    z = torch.tensor([22])
    values = model.hoppings(distance, torch.ones_like(distance), z, z)[0]
    got = dict(zip(HOPPINGS, values.tolist(), strict=True))
    radius = shell_amplitudes()[22, 2] ** (2 / 3)
    assert 0.9 < radius < 1.0
    assert got["sp_sigma"] == pytest.approx(1.42 * 7.62 / d**2, rel=1e-4)
    assert got["pd_pi"] == pytest.approx(1.36 * 7.62 * radius**1.5 / d**3.5, rel=1e-4)
    assert got["dd_sigma"] == pytest.approx(-14.32 * 7.62 * radius**3 / d**5, rel=1e-3)


@pytest.mark.parametrize(
    ("number", "shells"), [(1, "s"), (8, "sp"), (14, "sp"), (20, "spd"), (31, "sp"), (92, "spd")]
)
def test_shells_that_take_part(number: int, shells: str) -> None:
    assert ["spd"[k] for k in np.flatnonzero(shell_amplitudes()[number])] == list(shells)


def test_bounded_at_short_distance() -> None:
    """Even at distance 0 all values and slopes are finite."""
    distance = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([57])
    values = TightBinding().hoppings(distance, torch.ones_like(distance), z, z)
    (slope,) = torch.autograd.grad(values.sum(), distance)
    assert bool(torch.isfinite(values).all())
    assert slope.item() == 0.0
    assert float(values.detach().abs().max()) < 500.0


def test_vanish_at_the_cutoff_with_two_derivatives() -> None:
    """Each derivative over h^(3 - k) stays bounded as the distance from the cutoff h shrinks."""
    model, z = TightBinding(), torch.tensor([22])
    for h in (1e-2, 1e-4):
        distance = torch.full((1, 1), CUTOFF - h, dtype=torch.float64, requires_grad=True)
        value = model.edge_features(
            model.hoppings(distance, envelope(distance, CUTOFF), z, z)
        ).sum()
        for order in range(3):
            assert abs(value.item()) < 10.0 * h ** (3 - order)
            (value,) = torch.autograd.grad(value, distance, create_graph=True)


@pytest.mark.parametrize("atoms", [bulk("Fe"), molecule("H2O"), Atoms("TiO", [[0] * 3, [1.7] * 3])])
def test_second_derivatives(atoms: Atoms) -> None:
    """Against finite differences of the first; in Fe the site is cubic, anisotropies are 0."""
    graph, model = from_atoms(atoms, 3.0, torch.float64), TightBinding()
    source, destination = graph.edge_index
    z_i, z_j = graph.numbers[destination], graph.numbers[source]

    def outputs(vector: Tensor) -> Tensor:
        distance = vector.norm(dim=1, keepdim=True)
        hoppings = model.hoppings(distance, envelope(distance, 3.0), z_i, z_j)
        terms = model.edge_terms(hoppings, vector / distance, z_i, z_j)
        nodes = model.node_features(segment_sum(terms, destination, len(atoms)))
        return torch.cat([nodes.flatten(), model.edge_features(hoppings).sum(dim=0)])

    vector = graph.edge_vectors().requires_grad_(True)
    assert torch.autograd.gradcheck(outputs, vector)
    assert torch.autograd.gradgradcheck(outputs, vector)


def test_no_neighbours_give_zeros() -> None:
    assert features(Atoms("Ti"))[2].tolist() == [[0.0] * len(NODE_FEATURES)]


def test_widths() -> None:
    hoppings, moments, nodes = features(bulk("Fe"))
    assert hoppings.shape[1] == len(HOPPINGS)
    assert (moments.shape, nodes.shape) == ((1, 6), (1, len(NODE_FEATURES)))
    assert TightBinding().edge_features(hoppings).shape[1] == len(EDGE_FEATURES)
    assert not TightBinding().state_dict()


def test_features_are_of_order_one(structures: dict[str, Atoms]) -> None:
    for name in ("rocksalt", "fcc", "perovskite", "water", "benzene", "mirrored", "tiny"):
        assert float(features(structures[name])[2].abs().max()) < 3.0, name
