"""Reading structures and labels: every format, broken files, missing labels."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.testing import assert_allclose
from pymatgen.core import Lattice, Structure

from qdgnn_ase.data.io import labels, read_structures

ALLOYS = Path(__file__).parent.parent / "data_files" / "alloys_emt.extxyz"
TWO_SITES = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]


@pytest.fixture
def labelled() -> Atoms:
    """Rattled copper with EMT results attached as ASE's readers attach them."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    results = {
        name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def cif(path: Path, species: list[object]) -> Path:
    Structure(Lattice.cubic(3.0), species, TWO_SITES).to(str(path), fmt="cif")
    return path


def assert_same_labels(got: Atoms, wanted: Atoms) -> None:
    for name, value in labels(wanted).items():
        assert_allclose(labels(got)[name], value, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.xyz.gz", "a.db", "a.traj", "a.json"])
def test_labels_survive_the_format(tmp_path: Path, labelled: Atoms, name: str) -> None:
    form = "extxyz" if "xyz" in name else None
    ase.io.write(tmp_path / name, [labelled, labelled], format=form)
    frames = read_structures(tmp_path / name)
    assert len(frames) == 2
    for atoms in frames:
        assert_allclose(atoms.positions, labelled.positions, atol=1e-7)
        assert_same_labels(atoms, labelled)


@pytest.mark.parametrize("name", ["POSCAR", "a.vasp", "a.cif", "a.cif.gz"])
def test_structure_formats(tmp_path: Path, labelled: Atoms, name: str) -> None:
    path = tmp_path / name
    ase.io.write(path, labelled, format="cif" if "cif" in name else "vasp")
    (atoms,) = read_structures(path)
    assert atoms.get_chemical_formula() == "Cu4"
    assert atoms.pbc.all()
    assert_allclose(atoms.cell.cellpar(), labelled.cell.cellpar(), atol=1e-5)
    assert np.isnan(labels(atoms)["energy"])


def test_plain_xyz_is_a_molecule(tmp_path: Path) -> None:
    (tmp_path / "h2.xyz").write_text("2\nany comment\nH 0 0 0\nH 0 0 0.74\n")
    (atoms,) = read_structures(tmp_path / "h2.xyz")
    assert not atoms.pbc.any()
    assert atoms.cell.rank == 0


def test_index_chooses(tmp_path: Path, labelled: Atoms) -> None:
    ase.io.write(tmp_path / "a.extxyz", [bulk("Al"), labelled])
    assert [len(atoms) for atoms in read_structures(tmp_path / "a.extxyz")] == [1, 4]
    assert [len(atoms) for atoms in read_structures(tmp_path / "a.extxyz", "-1")] == [4]


def test_alloys_file_holds_emt_labels() -> None:
    """The file behind the training tests is what it claims to be."""
    for atoms in read_structures(ALLOYS):
        stored = labels(atoms)
        again = atoms.copy()
        again.calc = EMT()
        assert_allclose(again.get_potential_energy(), stored["energy"], atol=1e-5)
        assert_allclose(again.get_forces(), stored["forces"], atol=1e-5)
        assert_allclose(again.get_stress(), full_3x3_to_voigt_6_stress(stored["stress"]), atol=1e-5)


def test_stress_is_unpacked_from_voigt_order() -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, stress=np.arange(1.0, 7.0))
    assert_allclose(labels(atoms)["stress"], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


def test_without_calculator_all_is_missing() -> None:
    values = labels(bulk("Cu", cubic=True))
    assert {name: value.shape for name, value in values.items()} == {
        "energy": (),
        "forces": (4, 3),
        "stress": (3, 3),
    }
    assert all(np.isnan(value).all() for value in values.values())


def test_results_that_are_not_stored_are_not_computed() -> None:
    atoms = bulk("Cu")
    atoms.calc = EMT()
    assert np.isnan(labels(atoms)["energy"])
    assert not atoms.calc.results


def test_some_labels_missing(tmp_path: Path) -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    values = labels(read_structures(tmp_path / "a.extxyz")[0])
    assert values["energy"] == -1.5
    assert np.isnan(values["forces"]).all()
    assert np.isnan(values["stress"]).all()


def test_labels_belong_to_the_positions(labelled: Atoms) -> None:
    labelled.positions[0, 0] += 0.01
    assert all(np.isnan(value).all() for value in labels(labelled).values())
    with pytest.raises(PropertyNotImplementedError):
        labelled.get_potential_energy()


def test_labels_of_wrong_shape_are_refused() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.results["forces"] = np.zeros((3, 3))
    with pytest.raises(ValueError, match=r"stored forces must have shape \(4, 3\), got \(3, 3\)"):
        labels(atoms)


def test_cif_with_partial_occupancy_is_refused(tmp_path: Path) -> None:
    path = cif(tmp_path / "a.cif", [{"Cu": 0.5, "Ag": 0.5}, "Au"])
    assert len(ase.io.read(path)) == 2  # ASE reads it, as one of the two elements
    with pytest.raises(ValueError, match=r"a\.cif: structure must have fully occupied sites"):
        read_structures(path)


def test_cif_with_vacancies_is_refused(tmp_path: Path) -> None:
    path = cif(tmp_path / "a.cif", [{"Cu": 0.9}, "Au"])
    with pytest.raises(ValueError, match="must have fully occupied sites"):
        read_structures(path)


@pytest.mark.filterwarnings("ignore:(?s).*is not a valid Element")
def test_cif_with_dummy_species_is_refused(tmp_path: Path) -> None:
    path = cif(tmp_path / "a.cif", ["Cu", "Au"])
    path.write_text(path.read_text().replace("Au", "X"))
    with pytest.raises(ValueError, match=r"a\.cif: structure must hold elements only, got X"):
        read_structures(path)


@pytest.mark.parametrize(
    "name",
    ["a.extxyz", "a.xyz", "a.xyz.gz", "a.cif", "a.cif.gz", "a.db", "a.traj", "a.json", "POSCAR"],
)
@pytest.mark.parametrize("index", [":", "-1"])
def test_empty_file(tmp_path: Path, name: str, index: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with pytest.raises(ValueError, match=name) as caught:
        read_structures(path, index)
    assert "StopIteration" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz.gz", "a.cif", "a.db", "a.traj", "POSCAR"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file(tmp_path: Path, labelled: Atoms, name: str, share: float) -> None:
    path = tmp_path / name
    ase.io.write(path, labelled.repeat(3), format="extxyz" if "xyz" in name else None)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=name):
        read_structures(path)


def test_last_frame_cut_off(tmp_path: Path, labelled: Atoms) -> None:
    path = tmp_path / "a.extxyz"
    ase.io.write(path, [labelled, labelled])
    lines = path.read_text().splitlines(keepends=True)
    for kept in (len(lines) - 1, len(lines) - 4, len(lines) - 5):
        path.write_text("".join(lines[:kept]))
        with pytest.raises(ValueError, match=r"a\.extxyz must be a structure file"):
            read_structures(path)


def test_cif_cut_between_two_atoms_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    ase.io.write(path, bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    path.write_text("".join(path.read_text().rstrip().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="atoms of its formula Na4 Cl4, got Na4 Cl3"):
        read_structures(path)


def test_cif_without_formula_gives_no_warning(tmp_path: Path) -> None:
    path = cif(tmp_path / "a.cif", ["Cu", "Au"])
    kept = [line for line in path.read_text().splitlines() if "formula" not in line]
    path.write_text("\n".join(kept))
    assert read_structures(path)[0].get_chemical_formula() == "AuCu"


def test_cif_with_two_blocks(tmp_path: Path) -> None:
    first, second = cif(tmp_path / "a.cif", ["Cu", "Au"]), cif(tmp_path / "b.cif", ["Cu", "Ag"])
    (tmp_path / "both.cif").write_text(first.read_text() + second.read_text())
    frames = read_structures(tmp_path / "both.cif")
    assert [atoms.get_chemical_formula() for atoms in frames] == ["AuCu", "AgCu"]
    (last,) = read_structures(tmp_path / "both.cif", "-1")
    assert last.get_chemical_formula() == "AgCu"


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"structure file must exist, got .*none\.xyz"):
        read_structures(tmp_path / "none.xyz")
    with pytest.raises(FileNotFoundError, match="structure file must exist"):
        read_structures(tmp_path)
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"a\.bin must be a structure file that ASE reads"):
        read_structures(tmp_path / "a.bin")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    scaled = atoms.get_scaled_positions(wrap=False).tolist()
    row = {"lattice": atoms.cell.tolist(), "species": ["Na", "Cl"], "frac_coords": scaled}
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wt") as lines:
        lines.write(json.dumps(row | {"material_id": "mp-1"}) + "\n" + json.dumps(row) + "\n")
    first, second = read_structures(tmp_path / name)
    assert first.info == {"material_id": "mp-1"}
    assert second.info == {}
    assert_allclose(first.cell.array, atoms.cell.array)
    assert_allclose(first.positions, atoms.positions, atol=1e-12)
    assert list(first.symbols) == ["Na", "Cl"]
    assert first.pbc.all()
    assert len(read_structures(tmp_path / name, "0")) == 1


@pytest.mark.parametrize("text", ["{", "[1]", '{"species": ["Cu"]}', '"Cu"'])
def test_broken_json_lines(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rows\.jsonl.*row 1"):
        read_structures(path)
