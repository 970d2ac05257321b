"""matcalc's moduli and thermal expansion: two routes that must agree, and the table of them."""

from __future__ import annotations

import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from click.testing import CliRunner

from qdgnn_bench import matcalc_command, moduli

if find_spec("matcalc") is None:
    pytest.skip("matcalc is not installed", allow_module_level=True)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of matcalc's libraries
    pytest.mark.filterwarnings("ignore:logm result may be inaccurate"),
]


class Softer(EMT):
    """Negative control: the energies of copper with half of its stress."""

    def calculate(self, *args: Any, **options: Any) -> None:
        super().calculate(*args, **options)
        if "stress" in self.results:
            self.results["stress"] = 0.5 * self.results["stress"]


class Broken(Calculator):
    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012  as ASE has it

    def calculate(self, *args: Any, **options: Any) -> None:
        raise ValueError("no energy here")


def test_two_routes_and_ase_agree() -> None:
    got = moduli.moduli(bulk("Cu", a=3.6), EMT())
    volumes, energies = [], []
    for lattice in np.linspace(3.54, 3.64, 7):
        atoms = bulk("Cu", a=lattice)
        atoms.calc = EMT()
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    expected = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()[2] / units.GPa
    assert got["bulk_modulus_eos"] == pytest.approx(expected, rel=0.03)
    assert got["bulk_modulus_elastic"] == pytest.approx(expected, rel=0.03)
    assert 0 < got["shear_modulus_elastic"] < got["bulk_modulus_elastic"]


def test_a_wrong_stress_shows() -> None:
    got = moduli.moduli(bulk("Cu", a=3.6), Softer())
    assert got["bulk_modulus_elastic"] < 0.6 * got["bulk_modulus_eos"]


def test_failure_is_a_row() -> None:
    wanted = {"bulk_modulus": 100.0, "shear_modulus": 50.0}
    row = moduli.moduli_errors(bulk("Cu"), wanted, Broken())
    assert row["failure"] == "ValueError: no energy here"
    assert row["errors"] == {}
    summary = moduli.summarise([row])
    assert (summary["failed"], summary["routes_differ"]) == (1, None)


def test_thermal_expansion_of_copper() -> None:
    got = moduli.quasi_harmonic(bulk("Cu", a=3.6), EMT(), supercell=2)
    assert 1e-5 < got["thermal_expansion"] < 1e-4  # measured: 5.0e-5
    assert 0.9 * 24.94 < got["heat_capacity"] < 1.1 * 24.94  # 3 R
    assert 1 < got["gruneisen"] < 3


def write_solids(path: Path, solids: dict[str, Atoms]) -> None:
    rows = [
        {
            "material_id": key,
            "log10_K_VRH": 2.0,
            "log10_G_VRH": 1.5,
            "lattice": atoms.cell.array.tolist(),
            "species": list(atoms.symbols),
            "frac_coords": atoms.get_scaled_positions().tolist(),
        }
        for key, atoms in solids.items()
    ]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(json.dumps(row) for row in rows))


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "elastic.jsonl.gz"
    write_solids(path, {"mp-1": bulk("Cu", a=3.6), "mp-2": bulk("Ag", a=4.1)})
    monkeypatch.setattr(moduli, "SOLIDS", {"mp-1": "Cu, fcc", "mp-2": "Ag, fcc"})
    monkeypatch.setattr(matcalc_command, "_THERMAL", "Cu, fcc")
    monkeypatch.setattr(matcalc_command, "QDGNNCalculator", lambda *_, **__: EMT())
    monkeypatch.setattr(matcalc_command, "peers", lambda *_, **__: {"Peer": Softer})
    options = ["--all", "--json", str(tmp_path / "r.json"), "--markdown", str(tmp_path / "r.md")]
    result = CliRunner().invoke(
        matcalc_command.bench_matcalc, [str(path), *options], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "r.json").read_text())
    assert [row["solid"] for row in document["rows"]] == ["Cu, fcc", "Ag, fcc"]
    for row in document["rows"]:
        error = row["bulk_modulus_elastic"] / 100.0 - 1
        assert row["errors"]["bulk_modulus_elastic"] == pytest.approx(error)
        assert row["wanted"]["shear_modulus"] == pytest.approx(10**1.5)
    theirs = document["peers"]["Peer"]["summary"]["median_error"]
    assert theirs["bulk_modulus_elastic"] > document["summary"]["median_error"]["bulk_modulus_eos"]
    table = (tmp_path / "r.md").read_text()
    assert f"| **Peer's** | | {100 * theirs['bulk_modulus_elastic']:.0f} % |" in table
    assert table.count("| Cu, fcc | 100 |") == 1
    assert "Quasi-harmonic Cu, fcc at 300 K" in table
    assert table in result.output


def test_matcalc_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matcalc", None)
    path = tmp_path / "elastic.jsonl.gz"
    write_solids(path, {"mp-1": bulk("Cu", a=3.6)})
    result = CliRunner().invoke(matcalc_command.bench_matcalc, [str(path)])
    assert result.exit_code == 2
    assert "pip install 'qdgnn-ase[bench]'" in result.output


def test_missing_solids_are_named(tmp_path: Path) -> None:
    path = tmp_path / "elastic.jsonl.gz"
    write_solids(path, {"mp-1265": bulk("MgO", "rocksalt", a=4.2)})
    with pytest.raises(ValueError, match=r"missing: .*mp-149 \(Si, diamond\)"):
        moduli.read_labelled_solids(str(path))
