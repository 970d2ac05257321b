"""Forces, stress and Hessian against finite differences."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms

from qdgnn_ase import testing
from qdgnn_ase.graph import collate, from_atoms
from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian
from qdgnn_ase.nn.model import QDGNN


def test_forces(model64: QDGNN, structure: Atoms) -> None:
    testing.check_forces(model64, structure)


def test_stress(model64: QDGNN, structure: Atoms) -> None:
    testing.check_stress(model64, structure)


def test_hessian(model64: QDGNN, structure: Atoms) -> None:
    far = abs(structure.positions).max() > 1e5  # float64 itself rounds positions to 1e-10 Å
    testing.check_hessian(model64, structure, tolerance=1e-4 if far else 1e-5)


def test_real_frames(model64: QDGNN, real_frames: list[Atoms]) -> None:
    assert len(real_frames) == 6
    for atoms in real_frames:
        testing.check_forces(model64, atoms)
        testing.check_stress(model64, atoms)
        testing.check_rotation(model64, atoms)
    testing.check_hessian(model64, min(real_frames, key=len))


@pytest.mark.slow
def test_real_frames_all_components(model64: QDGNN, real_frames: list[Atoms]) -> None:
    for atoms in real_frames:
        testing.check_forces(model64, atoms, n_components=3 * len(atoms))
        testing.check_hessian(model64, atoms)


def test_stress_is_symmetric(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    graph = collate([from_atoms(structures[k], 4.5, torch.float64) for k in ("skewed", "tiny")])
    stress = energy_forces_stress(model64, graph)["stress"]
    torch.testing.assert_close(stress, stress.mT, atol=0, rtol=0)


def test_gradients_are_kept_for_training_only(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    graph = from_atoms(structures["skewed"], 4.5, torch.float64)
    for training in (False, True):
        output = energy_forces_stress(model64, graph, training=training)
        assert output["forces"].requires_grad == training


def test_training_gradients_are_finite_without_a_volume(
    model64: QDGNN, structures: dict[str, Atoms]
) -> None:
    """The NaN stress of a molecule must not reach the weights through a masked loss."""
    for name in ("water", "slab_two_vectors", "lone_atom"):
        graph = from_atoms(structures[name], 4.5, torch.float64)
        output = energy_forces_stress(model64, graph, training=True)
        assert bool(output["stress"].isnan().all())
        loss = output["energy"].sum() + output["forces"].square().sum()
        loss = loss + torch.where(output["stress"].isfinite(), output["stress"], 0.0).sum()
        gradient = torch.autograd.grad(loss, list(model64.parameters()))
        assert all(bool(g.isfinite().all()) for g in gradient), name


def test_frozen_weights_have_forces(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    graph = from_atoms(structures["skewed"], 4.5, torch.float64)
    expected = energy_forces_stress(model64, graph)["forces"]
    got = energy_forces_stress(model64.requires_grad_(False), graph)["forces"]
    torch.testing.assert_close(got, expected)


def test_hessian_refuses_a_batch(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    graph = from_atoms(structures["tiny"], 4.5, torch.float64)
    with pytest.raises(ValueError, match="takes one structure, got a batch of 2"):
        hessian(model64, collate([graph, graph]))


def test_hessian_of_a_lone_atom_is_zero(model64: QDGNN) -> None:
    assert not bool(hessian(model64, from_atoms(Atoms("Ar"), 4.5, torch.float64)).any())


def test_translations_are_in_the_null_space(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    matrix = hessian(model64, from_atoms(structures["perovskite"], 4.5, torch.float64))
    uniform = torch.eye(3, dtype=torch.float64).repeat(5, 1)
    assert (matrix @ uniform).abs().max() < 1e-9
