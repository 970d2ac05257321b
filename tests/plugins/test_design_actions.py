"""Actions of design keep their rules: charge, sites, masks, symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.spacegroup import crystal

pytest.importorskip("smact")

from qdgnn_design.defect_actions import insert, voids_for
from qdgnn_design.filters import Verdict, geometry_residuals
from qdgnn_design.oxidation import charges_of, is_ionic, smact_valid, with_oxidation
from qdgnn_design.space import FAMILIES, Candidate, DesignSpace, SpaceConfig
from qdgnn_design.symmetry import orbits, permutations, structure_key
from qdgnn_design.voids import voronoi_voids

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")


def perovskite() -> Atoms:
    basis = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    return crystal(["Cs", "Pb", "I"], basis, spacegroup=221, cellpar=[6.29] * 3 + [90] * 3)


def antifluorite() -> Atoms:
    return crystal(
        ["Na", "O"], [(0.25, 0.25, 0.25), (0, 0, 0)], spacegroup=225, cellpar=[5.55] * 3 + [90] * 3
    )


def alloy_space(**options: object) -> DesignSpace:
    config = SpaceConfig(
        elements=METALS, families=("substitute",), slots="sites", rescale=False, **options
    )
    return DesignSpace(bulk("Cu", a=3.9) * (2, 2, 2), config)


SPACES = {
    "perovskite": lambda: DesignSpace(
        perovskite() * (2, 1, 1),
        SpaceConfig(
            elements=("K", "Rb", "Ag", "Sr", "Ge", "Sn", "Bi", "In", "Br", "Cl"),
            families=("substitute", "pair", "swap", "strain"),
            slots="sites",
        ),
    ),
    "antifluorite": lambda: DesignSpace(
        antifluorite(),
        SpaceConfig(
            elements=("Li", "Mg", "Ca", "Al", "S", "Se", "K", "F"),
            families=("substitute", "aliovalent", "swap"),
            slots="sites",
            mobile="Na",
        ),
    ),
    "alloy": lambda: DesignSpace(
        bulk("Cu", cubic=True),
        SpaceConfig(elements=METALS, families=FAMILIES, slots="sites"),
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_walks_keep_the_rules(name: str) -> None:
    space = SPACES[name]()
    rng = np.random.default_rng(1)
    for _ in range(3):
        candidate = Candidate(space.start)
        for _ in range(5):
            before = candidate.atoms.copy()
            after = space.step(candidate, rng)
            assert candidate.atoms == before, "the argument changed"
            assert after.atoms.calc is None
            assert len(after.history) == len(candidate.history) + 1
            assert Verdict(geometry_residuals(after.atoms)).passed, after.history
            assert charges_of(after.atoms).sum() == charges_of(space.start).sum() == 0
            assert is_ionic(after.atoms) == is_ionic(space.start)
            assert abs(len(after.atoms) - len(space.start)) <= space.config.max_defects
            candidate = after


def test_smact_agrees_with_the_bookkeeping() -> None:
    space = DesignSpace(perovskite(), SpaceConfig(elements=("Rb", "K", "Sn", "Ge", "Br", "Cl")))
    rng = np.random.default_rng(0)
    assert all(smact_valid(space.walk(rng, 4).atoms) for _ in range(20))


def test_masks_forbid_another_charge() -> None:
    space = DesignSpace(perovskite(), SpaceConfig(elements=("K", "Sr", "Br", "O")))
    allowed = {
        action.name for action, ok in zip(space.actions, space.mask(space.start), strict=True) if ok
    }
    pairs = {name for name in allowed if name.startswith("charge")}
    assert allowed - pairs == {"K on site 0", "Sr on site 1", "Br on site 2,3,4"}
    assert pairs == {"charge -1 on site 1, +1 on site 0"}  # inverse perovskites


def test_breaking_neutrality_is_rejected_and_says_why() -> None:
    """Negative control of the filter."""
    broken = with_oxidation(perovskite())
    broken.arrays["oxidation"][0] = 3.0
    verdict = Verdict(geometry_residuals(broken))
    assert not verdict.passed
    assert verdict.reasons[0].startswith("total charge 2 e")


def test_masked_action_is_refused() -> None:
    space = alloy_space()
    masked = int(np.flatnonzero(~space.mask(space.start))[0])
    with pytest.raises(ValueError, match="is masked for Cu8"):
        space.apply(masked, Candidate(space.start), np.random.default_rng(0))


def test_pairs_find_the_elpasolites() -> None:
    start = perovskite() * (1, 1, 2)
    start.symbols[np.flatnonzero(start.symbols == "Pb")[0]] = "Sn"
    space = DesignSpace(start, SpaceConfig(elements=("Ag", "Bi"), families=("pair",)))
    rng = np.random.default_rng(0)
    found = {str(space.step(Candidate(space.start), rng).atoms.symbols) for _ in range(30)}
    assert any("Ag" in name and "Bi" in name for name in found)


def test_aliovalent_dopant_takes_and_gives_ions() -> None:
    config = SpaceConfig(elements=("Mg", "F"), families=("aliovalent",), mobile="Na")
    space = DesignSpace(antifluorite(), config)
    rng = np.random.default_rng(0)
    index = next(k for k, a in enumerate(space.actions) if a.name.startswith("Mg+2"))
    donor = space.apply(index, Candidate(space.start), rng).atoms
    assert str(donor.symbols.formula.convert("hill")) == "MgNa6O4"
    back = next(k for k, a in enumerate(space.actions) if a.name.startswith("F-1"))
    fluoride = space.apply(back, Candidate(space.start), rng).atoms
    assert str(fluoride.symbols.formula.convert("hill")) == "FNa7O3"  # one Na left with the charge


def test_acceptor_puts_an_ion_into_a_void() -> None:
    start = with_oxidation(bulk("MgO", "rocksalt", a=4.6, cubic=True) * (2, 1, 1))
    sites = np.flatnonzero(start.symbols == "Mg")[:2]
    start.symbols[sites] = "Li"
    start.arrays["oxidation"][sites] = 1.0
    start.symbols[np.flatnonzero(start.symbols == "O")[:2]] = "F"
    start.arrays["oxidation"][start.symbols == "F"] = -1.0
    config = SpaceConfig(elements=("Na",), families=("aliovalent",), mobile="Li")
    space = DesignSpace(start, config)
    index = next(
        k
        for k, (action, ok) in enumerate(zip(space.actions, space.mask(space.start), strict=True))
        if ok and action.name.startswith("Na+1")
    )
    doped = space.apply(index, Candidate(space.start), np.random.default_rng(0)).atoms
    assert len(doped) == len(start) + 1
    assert (doped.symbols == "Li").sum() == 3
    assert doped.arrays["site"][-1] == -1
    assert charges_of(doped).sum() == 0


def test_voids_of_fcc_are_octahedral_and_tetrahedral() -> None:
    positions, radii = voronoi_voids(bulk("Cu", a=4.0, cubic=True))
    assert radii[:4] == pytest.approx(2.0)
    assert radii[4:] == pytest.approx(np.sqrt(3))
    assert len(positions) == 4 + 8
    with pytest.raises(ValueError, match="periodic in 3 directions"):
        voronoi_voids(Atoms("Cu"))


def test_no_interstitial_where_there_is_no_room() -> None:
    copper = DesignSpace(bulk("Cu", cubic=True), SpaceConfig(elements=("H",))).start
    assert len(voids_for(copper, "H")) > 0
    assert len(voids_for(copper, "Cs")) == 0
    assert not insert("Cs").allowed(copper)


def test_strain_stays_in_its_bounds() -> None:
    config = SpaceConfig(families=("strain",), strain_step=0.02, max_strain=0.05)
    space = DesignSpace(bulk("Cu", cubic=True), config)
    rng = np.random.default_rng(0)
    for _ in range(5):
        cell = space.walk(rng, 12).atoms.cell.array
        stretches = np.linalg.svd(np.linalg.solve(space.start.cell.array, cell))[1]
        assert np.abs(stretches - 1).max() <= 0.05 + 1e-6


def test_orbits_and_keys() -> None:
    assert orbits(perovskite()) == [[0], [1], [2, 3, 4]]
    space = alloy_space()
    rows = permutations(space.start, [0] * 8)
    assert len(rows) == 192
    rng = np.random.default_rng(3)
    atoms = space.walk(rng, 12).atoms
    equal = atoms.copy()
    equal.numbers = atoms.numbers[rows[57]]
    assert space.key(equal) == space.key(atoms)
    energies = []
    for same in (atoms, equal):
        same.calc = EMT()
        energies.append(same.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)
    other = atoms.copy()
    other.numbers[0] = 78 if other.numbers[0] != 78 else 79
    assert space.key(other) != space.key(atoms)


def test_key_knows_images_and_order_but_not_noise() -> None:
    atoms = perovskite()
    moved = atoms[[4, 2, 0, 1, 3]]
    moved.positions += moved.cell.array[1]
    assert structure_key(moved) == structure_key(atoms)
    moved.positions[0] += 0.01
    assert structure_key(moved) != structure_key(atoms)


def test_equivalent_single_sites_are_offered_once() -> None:
    space = alloy_space()
    assert space.mask(space.start).sum() == len(METALS) - 1
    tried = Candidate(space.start)
    tried = space.apply(int(np.flatnonzero(space.mask(space.start))[0]), tried, None)  # type: ignore[arg-type]
    slots = {space.actions[k].slot for k in np.flatnonzero(space.mask(tried.atoms))}
    assert len(slots) == 3  # the new atom, its six neighbours, the site across


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        (Atoms("Cu"), {}, "three cell vectors"),
        (bulk("Cu"), {}, "at least one action"),
        (bulk("Cu"), {"elements": ("Xx",)}, "chemical symbol, got 'Xx'"),
        (bulk("Cu"), {"families": ("melt",)}, "families must be of"),
        (bulk("Cu"), {"families": ()}, "at least one of"),
        (bulk("Cu"), {"strain_step": 0.1, "max_strain": 0.05}, "strain_step and max_strain"),
    ],
)
def test_bad_spaces_are_refused(start: Atoms, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DesignSpace(start, SpaceConfig(**options))  # type: ignore[arg-type]
