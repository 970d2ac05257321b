"""The contracts of a potential on every kind of structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from ase import Atoms
from torch import nn

from qdgnn_ase import testing
from qdgnn_ase.graph import from_atoms
from qdgnn_ase.nn import segment
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.quantum.tight_binding import NODE_FEATURES

Check = Callable[[nn.Module, Atoms], None]
INVARIANCES = [
    testing.check_permutation,
    testing.check_rotation,
    testing.check_translation,
    testing.check_wrap,
    testing.check_supercell,
    testing.check_net_force,
    testing.check_isolated,
]


def test_fixture_is_not_trivial(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    """Forces as large as real ones, and structures inside the range of the repulsion."""
    graphs = [from_atoms(atoms, 4.5, torch.float64) for atoms in structures.values()]
    forces = [energy_forces_stress(model64, g)["forces"].abs().max() for g in graphs]
    shortest = [g.edge_vectors().norm(dim=1).min() for g in graphs if g.n_edges]
    assert len(structures) >= 20
    assert sum(bool(force > 0.2) for force in forces) >= 12
    assert sum(bool(d < 1.3) for d in shortest) >= 3


@pytest.mark.parametrize("check", INVARIANCES, ids=lambda check: check.__name__)
def test_invariances(model64: QDGNN, structure: Atoms, check: Check) -> None:
    check(model64, structure)


@pytest.mark.parametrize("name", ["rocksalt", "perovskite", "water", "fcc", "lone_atom"])
def test_continuity(model64: QDGNN, structures: dict[str, Atoms], name: str) -> None:
    testing.check_continuity(model64, structures[name])


def test_continuity_where_the_repulsion_reaches_the_cutoff(model64: QDGNN) -> None:
    model64.shortest.fill_(6.0)
    testing.check_continuity(model64, Atoms("SiC"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs(model64: QDGNN, structures: dict[str, Atoms], dtype: torch.dtype) -> None:
    del structures["far_molecule"]
    testing.check_outputs(model64.to(dtype), list(structures.values()))


def test_batch_equals_singles(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    testing.check_batch(model64, list(structures.values()))


def test_inputs_are_not_mutated(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    testing.check_unchanged(model64, list(structures.values()))


def test_all_contracts_at_initialisation() -> None:
    testing.check_model(QDGNN(QDGNNConfig(hidden=16, n_vectors=4, n_pair=8, n_heads=4)))


@pytest.mark.parametrize("quantum", ["none", "permuted"])
def test_other_descriptors(quantum: Literal["none", "permuted"]) -> None:
    model, structures = QDGNN(QDGNNConfig(quantum=quantum)), testing.example_structures()
    testing.check_outputs(model, structures)
    testing.check_forces(model, structures[0])


@pytest.mark.parametrize("name", ["perovskite", "mirrored", "water", "lone_atom"])
@pytest.mark.parametrize("quantum", ["t0_hoppings", "t0_moments"])
def test_tight_binding_contracts(
    quantum: Literal["t0_hoppings", "t0_moments"], name: str, structures: dict[str, Atoms]
) -> None:
    """Invariances, smooth cutoff, forces against finite differences; titanium has d orbitals."""
    testing.check_model(tight_binding_model(quantum), [structures[name]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quantum", ["t0_hoppings", "t0_moments"])
def test_tight_binding_batches(
    quantum: Literal["t0_hoppings", "t0_moments"],
    dtype: torch.dtype,
    structures: dict[str, Atoms],
) -> None:
    model, frames = tight_binding_model(quantum), list(structures.values())[::4]
    testing.check_batch(model, frames)
    testing.check_outputs(model.to(dtype), frames)


def test_tight_binding_through_dgl(
    structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to sum give the same gradient of a loss on forces."""
    if not segment.has_dgl():
        pytest.skip("needs dgl")
    model, gradients = tight_binding_model("t0_moments"), []
    graph = from_atoms(structures["perovskite"], model.config.cutoff, torch.float64)
    for threshold in (0, 10**9):
        monkeypatch.setattr(segment, "DGL_MIN_EDGES", threshold)
        loss = energy_forces_stress(model, graph, training=True)["forces"].square().mean()
        weights = [model.trunk.fusion.fuse.weight, model.trunk.layers[0].pair_radial.weight]
        gradients.append(torch.autograd.grad(loss, weights))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("quantum", ["t0_hoppings", "t0_moments"])
def test_tight_binding_features_reach_the_energy(
    quantum: Literal["t0_hoppings", "t0_moments"], structures: dict[str, Atoms]
) -> None:
    """Negative control: without their weights the energy is another one."""
    model = tight_binding_model(quantum)
    graph = from_atoms(structures["perovskite"], model.config.cutoff, torch.float64)
    energies = [model(graph)["energy"].item()]
    with torch.no_grad():
        for layer in model.trunk.layers:
            layer.pair_radial.weight[:, model.config.n_radial :] = 0.0
        energies.append(model(graph)["energy"].item())
        model.trunk.fusion.fuse.weight[:, -len(NODE_FEATURES) :] = 0.0
        energies.append(model(graph)["energy"].item())
    assert abs(energies[0] - energies[1]) > 1e-3
    assert quantum == "t0_hoppings" or abs(energies[1] - energies[2]) > 1e-3


def test_tight_binding_extends_t0() -> None:
    """The same table, and nothing new in a checkpoint but wider weights."""
    plain, extended = QDGNN(QDGNNConfig()), QDGNN(QDGNNConfig(quantum="t0_moments"))
    torch.testing.assert_close(extended.trunk.quantum, plain.trunk.quantum, equal_nan=True)
    assert plain.trunk.tight_binding is None
    assert extended.state_dict().keys() == plain.state_dict().keys()


def tight_binding_model(quantum: Literal["t0_hoppings", "t0_moments"]) -> QDGNN:
    """Small random float64 model that the new features matter to."""
    config = QDGNNConfig(
        cutoff=4.0, hidden=16, n_layers=2, n_vectors=4, n_pair=8, n_heads=2, quantum=quantum
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = QDGNN(config, neighbors=20.0).double()
    with torch.no_grad():
        for layer in model.trunk.layers:
            layer.pair_radial.weight *= 4.0
    model.energy_scale.fill_(100.0)
    return model


def test_energies_add_up_to_the_energy(model64: QDGNN, structure: Atoms) -> None:
    output = model64(from_atoms(structure, 4.5, torch.float64))
    torch.testing.assert_close(output["energies"].sum(), output["energy"][0])
    assert output["hidden"].shape == (len(structure), model64.config.hidden)


def test_a_missing_element_is_nan_not_a_number() -> None:
    """Row 0 of the table belongs to no element."""
    assert bool(QDGNN(QDGNNConfig()).trunk.quantum[0].isnan().all())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cutoff": 0.0}, "cutoff must be larger than 0, got 0.0"),
        ({"n_layers": -1}, "n_layers must be larger than 0, got -1"),
        ({"hidden": 40}, r"divisible by 2 \* n_heads = 16, got 40"),
        ({"quantum": "dft"}, r"quantum must be one of \('t0', .*\), got 'dft'"),
    ],
)
def test_config_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QDGNNConfig(**values)  # type: ignore[arg-type]


def test_config_round_trip() -> None:
    config = QDGNNConfig(cutoff=4.2, n_heads=2)
    assert QDGNNConfig(**config.to_dict()) == config
