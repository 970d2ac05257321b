"""Property models: the same value for a supercell, any order of atoms, any orientation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from qdgnn_ase.graph import AtomGraph, collate, from_atoms, site_graph
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
from qdgnn_ase.nn.readout import AtomMeanHead, Pool, PooledHead, smooth_maximum
from qdgnn_ase.nn.trunk import QDGNNConfig, quantum_descriptors
from qdgnn_ase.properties import PROPERTIES, Property
from qdgnn_ase.quantum.atomic import atomic_features
from qdgnn_ase.quantum.tight_binding import NODE_FEATURES

CUTOFF = 4.5
TRUNK = QDGNNConfig(cutoff=CUTOFF, hidden=16, n_layers=2, n_vectors=4, n_pair=8, n_heads=2)
TARGETS = ("formation_energy", "band_gap", "metal_probability")
CRYSTALS = ("rocksalt", "perovskite", "triclinic", "hcp", "one_atom_cell")


@pytest.fixture(scope="module")
def model() -> PropertyModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PropertyModel(PropertyConfig(targets=TARGETS, trunk=TRUNK, n_members=3)).double()


def values(model: PropertyModel, *structures: Atoms) -> torch.Tensor:
    graph = collate([site_graph(atoms, CUTOFF, torch.float64) for atoms in structures])
    found: torch.Tensor = model(graph)["values"].detach()
    return found


@pytest.mark.parametrize("name", CRYSTALS)
def test_invariances(model: PropertyModel, structures: dict[str, Atoms], name: str) -> None:
    atoms = structures[name]
    wanted = values(model, atoms)[0]
    rng = np.random.default_rng(0)
    turned = atoms.copy()
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    turned.set_cell(turned.cell.array @ turn.T, scale_atoms=True)
    shifted = atoms.copy()
    shifted.positions += [0.31, 1.7, -0.4]
    permuted = atoms[rng.permutation(len(atoms))]
    supercell = atoms.repeat((2, 1, 2))
    for changed in (turned, shifted, permuted, supercell):
        torch.testing.assert_close(values(model, changed)[0], wanted, rtol=1e-9, atol=1e-9)


def test_another_structure_has_another_value(
    model: PropertyModel, structures: dict[str, Atoms]
) -> None:
    """Negative control of the invariances: a strain and another element are seen."""
    atoms = structures["rocksalt"]
    strained, replaced = atoms.copy(), atoms.copy()
    strained.set_cell(atoms.cell.array * 1.05, scale_atoms=True)
    replaced.numbers[replaced.numbers == 11] = 19
    wanted = values(model, atoms)[0]
    for changed in (strained, replaced):
        assert float((values(model, changed)[0] - wanted).abs().min()) > 1e-6


def test_a_sum_over_atoms_would_fail(
    model: PropertyModel, structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: an extensive head gives a supercell another value."""
    monkeypatch.setattr(
        PooledHead,
        "forward",
        lambda self, atoms, pool: pool.sum(self.members(torch.cat([atoms] * 3, dim=1))),
    )
    atoms = structures["hcp"]
    one, two = (values(model, cell)[0, 1] for cell in (atoms, atoms.repeat((1, 1, 2))))
    assert float((one - two).abs().min()) > 1e-3


def test_batch_equals_singles(model: PropertyModel, structures: dict[str, Atoms]) -> None:
    several = [structures[name] for name in CRYSTALS]
    together = values(model, *several)
    assert together.shape == (len(several), len(TARGETS), 3)
    for atoms, row in zip(several, together, strict=True):
        torch.testing.assert_close(values(model, atoms)[0], row)


def test_lone_atom_without_neighbours(model: PropertyModel) -> None:
    assert bool(values(model, Atoms("He", cell=[20.0] * 3, pbc=True)).isfinite().all())


def test_smooth_maximum_lies_between_mean_and_maximum() -> None:
    atoms = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    graphs = [from_atoms(Atoms(f"Ar{n}", [[9 * k, 0, 0] for k in range(n)]), 1.0) for n in (4, 5)]
    found = smooth_maximum(atoms, Pool(collate(graphs)))
    for row, part in zip(found, atoms.split([4, 5]), strict=True):
        assert bool((row <= part.max(dim=0).values).all())
        assert bool((row >= part.mean(dim=0)).all())


def test_domain_holds_what_it_was_taken_from(model: PropertyModel) -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(400, TRUNK.hidden, generator=generator, dtype=torch.float64)
    model.set_domain(inside)
    assert float(model.in_domain(inside).double().mean()) == pytest.approx(0.99, abs=0.005)
    assert not bool(model.in_domain(inside + 20.0).any())
    model.set_domain(inside[:5])  # too few to tell
    assert bool(model.in_domain(inside + 20.0).all())
    inside[7] = torch.nan
    with pytest.raises(ValueError, match="embeddings must be finite"):
        model.set_domain(inside)


def _model(quantum: str) -> PropertyModel:
    trunk = dataclasses.replace(TRUNK, quantum=quantum)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PropertyModel(PropertyConfig(targets=TARGETS, trunk=trunk, n_members=3)).double()


QUANTUM = ("none", "t0", "t0_hoppings", "t0_moments")


@pytest.mark.parametrize("quantum", QUANTUM)
def test_full_occupancies_change_nothing(quantum: str, structures: dict[str, Atoms]) -> None:
    model = _model(quantum)
    for name in CRYSTALS:
        graph = from_atoms(structures[name], CUTOFF, torch.float64)
        written = model(graph.with_occupancies())
        for key, value in model(graph).items():
            torch.testing.assert_close(written[key], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("quantum", QUANTUM)
@pytest.mark.parametrize("name", ["shared", "vacant", "split"])
def test_invariances_of_disorder(quantum: str, name: str, partial: dict[str, Atoms]) -> None:
    model, atoms = _model(quantum), partial[name]
    (wanted,) = values(model, atoms)
    supercell = atoms.repeat((2, 1, 2))
    permuted = supercell[np.random.default_rng(0).permutation(len(supercell))]
    for changed in (supercell, permuted):
        torch.testing.assert_close(values(model, changed)[0], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("quantum", QUANTUM)
def test_shares_matter_and_interpolate(quantum: str, partial: dict[str, Atoms]) -> None:
    """Between the pure ones, equal to them at the ends, and smooth in the share."""
    model, atoms = _model(quantum), partial["shared"]

    def at(share: float) -> torch.Tensor:
        atoms.info["occupancy"] = {"0": {"Na": 1 - share, "K": share}, "1": {"Cl": 1.0}}
        atoms.numbers[0] = 11 if share < 0.5 else 19
        return values(model, atoms)[0]

    low, high = at(1e-6), at(1 - 1e-6)
    torch.testing.assert_close(low, at(0.0), rtol=1e-3, atol=1e-4)
    assert float((low - high).abs().min()) > 1e-6
    assert float((at(0.4) - at(0.5)).abs().min()) > 1e-9


def test_a_vacant_site_is_no_site(partial: dict[str, Atoms]) -> None:
    """As its occupancy goes to 0, a structure goes to that without it."""
    model, atoms = _model("t0_moments"), partial["vacant"]
    atoms.info["occupancy"] = {"0": {"Na": 1e-7}, "1": {"Cl": 0.999999}}
    alone = atoms[[1]]
    assert str(alone.symbols) == "Cl"
    torch.testing.assert_close(values(model, atoms), values(model, alone), rtol=1e-4, atol=1e-5)
    atoms.info["occupancy"] = {"0": {"Na": 0.5}, "1": {"Cl": 0.999999}}
    assert float((values(model, atoms) - values(model, alone)).abs().max()) > 1e-3


def test_batch_of_all_bases_equals_singles(partial: dict[str, Atoms]) -> None:
    model = _model("t0_moments")
    together = values(model, *partial.values())
    for atoms, row in zip(partial.values(), together, strict=True):
        torch.testing.assert_close(values(model, atoms)[0], row)


def test_a_potential_takes_no_occupancies(partial: dict[str, Atoms]) -> None:
    graph: AtomGraph = site_graph(partial["shared"], CUTOFF)
    with pytest.raises(ValueError, match="fully occupied by one element in a potential"):
        QDGNN(TRUNK)(graph)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"targets": ()}, "at least one"),
        ({"targets": ("band_gap", "band_gap")}, "distinct"),
        ({"targets": ("young_modulus",)}, "target must be one of"),
        ({"targets": ("band_gap",), "n_members": 1}, "at least 2"),
    ],
)
def test_bad_configs(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PropertyConfig(**arguments)  # type: ignore[arg-type]


def test_config_round_trip() -> None:
    config = PropertyConfig(targets=TARGETS, trunk=TRUNK, n_members=3)
    assert PropertyConfig.from_dict(config.to_dict()) == config


def test_targets_of_ones_own() -> None:
    own = Property(name="heat", unit="eV", description="mine", pooling="atoms", lower=-1.0)
    config = PropertyConfig(targets=("heat", "band_gap"), trunk=TRUNK, n_members=3, own=(own,))
    values = json.loads(json.dumps(config.to_dict()))
    assert PropertyConfig.from_dict(values) == config
    assert config.properties == (own, PROPERTIES["band_gap"])
    heads = PropertyModel(config).heads
    assert isinstance(heads["heat"], AtomMeanHead)
    assert "own" not in PropertyConfig(targets=TARGETS, trunk=TRUNK).to_dict()  # as it was before
    shadow = Property(name="band_gap", unit="eV", description="mine")
    with pytest.raises(ValueError, match="that PROPERTIES does not, got 'band_gap'"):
        PropertyConfig(targets=("band_gap",), own=(shadow,))
    for name in ("", "log10.K", "values"):
        row = Property(name=name, unit="eV", description="mine")
        with pytest.raises(ValueError, match="name without a dot"):
            PropertyConfig(targets=(name,), own=(row,))
    with pytest.raises(ValueError, match="got 'heat' beside targets"):
        PropertyConfig(targets=("band_gap",), own=(own,))


def test_descriptors_are_those_that_the_trunk_sees(structures: dict[str, Atoms]) -> None:
    graph = from_atoms(structures["rocksalt"], CUTOFF)
    table = atomic_features()
    found = quantum_descriptors(graph, QDGNNConfig(cutoff=CUTOFF, quantum="t0_moments"))
    n = table.shape[1]
    np.testing.assert_allclose(found[:, :n], table[graph.numbers], rtol=1e-6)
    assert found.shape[1] == n + len(NODE_FEATURES)
    assert bool(torch.isfinite(found).all())


def test_other_neighbours_scale_the_sums(
    model: PropertyModel, structures: dict[str, Atoms]
) -> None:
    other = PropertyModel(model.config, neighbors=7.0).double()
    other.load_state_dict(model.state_dict())
    atoms = structures["perovskite"]
    assert not torch.equal(values(other, atoms), values(model, atoms))
    other.set_neighbors(model.neighbors)
    assert torch.equal(values(other, atoms), values(model, atoms))
