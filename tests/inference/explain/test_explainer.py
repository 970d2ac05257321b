"""Explanations: completeness, symmetry, invariance, controls, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from qdgnn_ase import (
    QDGNN,
    Explainer,
    Explanation,
    ExtrapolationWarning,
    Predictor,
    QDGNNCalculator,
    agreement,
    explain,
    predict,
)
from qdgnn_ase.inference.explain import METHODS

TARGETS = ("formation_energy", "band_gap", "metal_probability", "bulk_modulus")


def perovskite() -> Atoms:
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=places, cell=[3.905] * 3, pbc=True)


def assert_same(a: Explanation, b: Explanation, factor: float = 1.0) -> None:
    scale = max(np.abs(a.atom_scores).max(), 1e-12)
    np.testing.assert_allclose(b.atom_scores * factor, a.atom_scores, atol=1e-6 * scale)


def test_attributions_are_complete(explainer: Explainer, structure: Atoms) -> None:
    found = explainer(structure)
    change = found.value - found.baseline
    assert found.bond_scores.sum() == pytest.approx(change, rel=0.01, abs=1e-12)
    assert found.gap == pytest.approx(found.bond_scores.sum() - change)
    assert found.atom_scores.sum() == pytest.approx(found.bond_scores.sum())


@pytest.mark.parametrize("target", ["formation_energy", "band_gap", "bulk_modulus", "energy"])
def test_embedded_models_are_complete(target: str) -> None:
    found = explain(perovskite(), target)
    assert abs(found.value - found.baseline) > 0.01
    assert abs(found.gap) < 0.01 * abs(found.value - found.baseline)


def test_the_value_is_the_prediction(property_file: Path, potential: QDGNN) -> None:
    atoms = perovskite()
    wanted = Predictor(property_file)([atoms])[0]
    for target in ("formation_energy", "bulk_modulus"):
        found = explain(atoms, target, "gradient", property_file)
        value = 10**found.value if found.unit == "log10(GPa)" else found.value
        assert value == pytest.approx(wanted[target].value, rel=1e-4)
    atoms.calc = QDGNNCalculator(potential, dtype="float64")
    found = Explainer("energy", potential)(atoms)
    assert found.value == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_equivalent_atoms_get_equal_scores(explainer: Explainer, method: str) -> None:
    oxygen = explainer(perovskite(), method).atom_scores[2:]
    assert abs(oxygen[0]) > 0
    np.testing.assert_allclose(oxygen, oxygen[0], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_order_orientation_and_place_do_not_matter(
    explainer: Explainer, structures: dict[str, Atoms], method: str
) -> None:
    atoms = structures["triclinic"]
    found = explainer(atoms, method)
    order = np.array([2, 0, 1])
    permuted = explainer(atoms[order], method)
    np.testing.assert_allclose(permuted.atom_scores, found.atom_scores[order], rtol=1e-6)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ Rotation.random(rng=1).as_matrix(), scale_atoms=True)
    turned.positions += [0.3, 7.0, -2.0]
    assert_same(found, explainer(turned, method))
    assert np.ptp(found.atom_scores) > 1e-9


@pytest.mark.parametrize("method", ["integrated", "attention"])
def test_supercell(explainer: Explainer, method: str) -> None:
    """Atoms of a supercell carry the same energy, and a part of an intensive property."""
    small, large = bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1)
    factor = 2.0 if explainer.target == "band_gap" and method == "integrated" else 1.0
    found, wanted = explainer(large, method), explainer(small, method)
    np.testing.assert_allclose(
        found.atom_scores * factor, np.tile(wanted.atom_scores, 2), rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_lone_atom_has_no_bonds(explainer: Explainer, method: str) -> None:
    found = explainer(Atoms("Xe", cell=[12] * 3, pbc=True), method)
    assert len(found.bonds) == 0
    assert found.value == pytest.approx(found.baseline, abs=1e-12)
    assert found.gap == pytest.approx(0.0, abs=1e-12)
    assert found.atom_scores.tolist() == [0.0]
    assert found.pair_summaries() == []


def test_an_atom_far_away_gets_nothing(explainer: Explainer) -> None:
    atoms = Atoms("COAr", [[0, 0, 0], [0, 0, 1.2], [0, 0, 30]])
    scores = explainer(atoms).atom_scores
    assert scores[2] == 0
    assert scores[0] != 0


def test_strengths(explainer: Explainer) -> None:
    atoms = perovskite()
    found = explainer(atoms)
    n = len(found.bonds)
    values = explainer.values(atoms, np.stack([np.ones(n), np.zeros(n), np.full(n, 0.5)]))
    assert values[:2] == pytest.approx([found.value, found.baseline])
    assert values[2] not in (values[0], values[1])


def test_summaries_and_arrays(explainer: Explainer) -> None:
    atoms = perovskite()
    before = atoms.copy()
    found = explainer(atoms)
    assert atoms == before
    rows = found.pair_summaries()
    assert {row.pair for row in rows} == {"O-O", "O-Sr", "O-Ti", "Sr-Sr", "Sr-Ti", "Ti-Ti"}
    assert sum(row.n_bonds for row in rows) == len(found.bonds)
    assert sum(row.total for row in rows) == pytest.approx(found.bond_scores.sum())
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    titanium = next(row for row in rows if row.pair == "O-Ti")
    assert titanium.shortest == pytest.approx(3.905 / 2)
    written = found.to_atoms()
    name = f"{explainer.target}_integrated"
    np.testing.assert_array_equal(written.arrays[name], found.atom_scores)
    assert written.info[f"{explainer.target}_value"] == found.value
    sizes = np.abs(found.bond_scores[found.ranking()])
    assert (np.diff(sizes) <= 1e-6 * sizes[0]).all()


def test_agreement(explainer: Explainer) -> None:
    atoms = perovskite()
    rows = [explainer(atoms, method) for method in METHODS]
    found = agreement(rows)
    assert len(found) == 6
    assert all(-1 <= value <= 1 for value in found.values())
    assert agreement([rows[0]]) == {}
    lone = Atoms("Xe", cell=[12] * 3, pbc=True)
    assert np.isnan(list(agreement([explainer(lone, name) for name in METHODS[:2]]).values())).all()
    with pytest.raises(ValueError, match="of one structure"):
        agreement([rows[0], explainer(lone, "gradient")])


def test_control_untrained_weights_tell_something_else() -> None:
    trained = Explainer("formation_energy")
    untrained = trained.untrained(seed=0)
    atoms = perovskite()
    found, control = trained(atoms), untrained(atoms)
    assert abs(control.gap) < 0.01 * abs(control.value - control.baseline)
    assert control.value != found.value
    difference = np.abs(control.bond_scores - found.bond_scores).max()
    assert difference > 0.5 * np.abs(found.bond_scores).max()
    np.testing.assert_array_equal(trained(atoms).bond_scores, found.bond_scores)
    again, other = (trained.untrained(seed)(atoms).bond_scores for seed in (0, 1))
    np.testing.assert_array_equal(again, control.bond_scores)
    assert not np.allclose(other, control.bond_scores)


def test_control_the_top_bonds_matter_and_the_last_do_not() -> None:
    explainer, atoms = Explainer("formation_energy"), perovskite()
    found = explainer(atoms)
    k = len(found.bonds) // 5
    first, last = np.ones((2, len(found.bonds)))
    first[found.ranking()[:k]] = 0
    last[found.ranking()[-k:]] = 0
    changes = np.abs(explainer.values(atoms, np.stack([first, last])) - found.value)
    assert changes[0] > 5 * changes[1]


def test_the_model_given_is_not_changed(potential: QDGNN) -> None:
    Explainer("energy", potential)(perovskite())
    assert potential.energy_scale.dtype == torch.float32
    assert all(p.requires_grad and p.dtype == torch.float32 for p in potential.parameters())
    assert not any(layer._forward_pre_hooks for layer in potential.trunk.layers)


def test_bad_targets_and_models(property_file: Path, potential: QDGNN) -> None:
    with pytest.raises(ValueError, match=r"target must be 'energy' or one of .*got 'gap'"):
        explain(perovskite(), "gap", model=property_file)
    with pytest.raises(ValueError, match="a potential predicts 'energy' only, got target"):
        Explainer("band_gap", potential)
    with pytest.raises(ValueError, match="must have a potential, got a property model"):
        Explainer("energy", Predictor(property_file))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        explain(perovskite(), model="nowhere")
    with pytest.raises(ValueError, match="method must be one of"):
        explain(perovskite(), method="magic", model=property_file)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "at least one atom"),
        (Atoms("Md"), "atomic numbers must lie in 1..94"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "finite"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.01]]), "apart"),
    ],
)
def test_bad_structures(property_file: Path, atoms: Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(atoms, model=property_file)


def test_bad_strengths(explainer: Explainer) -> None:
    atoms = perovskite()
    n = len(explainer(atoms, "attention").bonds)
    for wrong in (np.ones(n), np.ones((2, n - 1)), np.full((1, n), 1.1), np.full((1, n), np.nan)):
        with pytest.raises(ValueError, match="numbers from 0 to 1"):
            explainer.values(atoms, wrong)


def test_unseen_elements_warn(potential: QDGNN) -> None:
    potential.counts[22] = 0
    explainer = Explainer("energy", potential)
    with pytest.warns(ExtrapolationWarning, match="not in the training data: Ti"):
        assert not explainer(perovskite()).in_domain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert explainer(bulk("Cu")).in_domain


def test_domain_is_that_of_predict() -> None:
    lone = Atoms("Xe", cell=[12] * 3, pbc=True)
    for atoms in (perovskite(), lone):
        wanted = predict(atoms)["band_gap"].in_domain
        assert explain(atoms, "band_gap", "gradient").in_domain == wanted
    assert not wanted
