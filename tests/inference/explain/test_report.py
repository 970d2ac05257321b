"""Explanations as files: the table, the plot and the page hold what was computed."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from qdgnn_ase import Explainer, Explanation
from qdgnn_ase.inference.explain.report import bonds_csv, plot_bonds, write_chemiscope

STRUCTURES = [bulk("NaCl", "rocksalt", a=5.6), Atoms("Xe", cell=[12] * 3, pbc=True), bulk("Si")]
DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)


@pytest.fixture
def rows(property_file: Path) -> list[list[Explanation]]:
    explainer = Explainer("band_gap", property_file)
    return [[explainer(atoms, "integrated"), explainer(atoms, "attention")] for atoms in STRUCTURES]


def test_csv(rows: list[list[Explanation]]) -> None:
    table = list(csv.DictReader(io.StringIO(bonds_csv(rows[0]))))
    assert len(table) == len(rows[0][0].bonds)
    for line, score, other in zip(
        table, rows[0][0].bond_scores, rows[0][1].bond_scores, strict=True
    ):
        assert float(line["integrated"]) == pytest.approx(score, rel=1e-6)
        assert float(line["attention"]) == pytest.approx(other, rel=1e-6)
        vector = [float(line[axis]) for axis in ("dx", "dy", "dz")]
        assert np.linalg.norm(vector) == pytest.approx(float(line["length"]), abs=1e-5)
    assert bonds_csv(rows[1]).count("\n") == 1


def test_plot(rows: list[list[Explanation]], tmp_path: Path) -> None:
    path = tmp_path / "bonds.svg"
    plot_bonds([explanation for row in rows for explanation in row], path)
    text = path.read_text()
    for word in ("Cl-Na", "Si-Si", "bond length", "integrated", "attention"):
        assert word in text


def test_plot_without_bonds(rows: list[list[Explanation]], tmp_path: Path) -> None:
    plot_bonds(rows[1], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def page_data(path: Path) -> tuple[str, dict[str, Any]]:
    page = path.read_text(encoding="utf-8")
    found = DATA.findall(page)
    assert len(found) == 1
    return page, json.loads(found[0])


def test_page(rows: list[list[Explanation]], tmp_path: Path) -> None:
    pytest.importorskip("chemiscope")
    path = tmp_path / "page.html"
    write_chemiscope(rows, path)
    page, data = page_data(path)
    assert [s["names"] for s in data["structures"]] == [list(a.symbols) for a in STRUCTURES]
    assert len(data["environments"]) == sum(len(atoms) for atoms in STRUCTURES)
    scores = data["properties"]["band_gap (integrated)"]
    wanted = np.concatenate([row[0].atom_scores for row in rows])
    np.testing.assert_allclose(scores["values"], wanted)
    assert (scores["target"], scores["units"]) == ("atom", "eV")
    assert data["properties"]["band_gap (attention)"]["units"] == "1"
    cylinders = data["shapes"]["bonds"]["parameters"]["structure"]
    drawn = [max(1, len(row[0].bonds)) for row in rows]
    assert [len(part["vectors"]) for part in cylinders] == drawn
    assert cylinders[1]["radii"] == 0  # a lone atom
    strongest = rows[0][0].ranking()[0]
    np.testing.assert_allclose(cylinders[0]["vectors"][0], rows[0][0].bonds.vectors[strongest])
    assert page.count("</script>") == 3  # no text of a script or of the data ends its element
    assert "Chemiscope.DefaultVisualizer.load" in page
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)


def test_page_needs_chemiscope(
    rows: list[list[Explanation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chemiscope", None)
    with pytest.raises(ImportError, match=r"pip install 'qdgnn-ase\[report\]'"):
        write_chemiscope(rows, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
