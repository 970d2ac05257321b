"""The Python blocks of the README run as they stand; its tables are the saved results'."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qdgnn_bench.card import error_table
from qdgnn_bench.property_card import property_table
from qdgnn_bench.property_report import short_table
from qdgnn_bench.readme import replace_blocks

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "plugins" / "qdgnn_bench" / "results"
PRETRAINED = ROOT / "qdgnn_ase" / "pretrained"

BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.S | re.M)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["calculator", "predict"])
def test_block_runs(block: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_tables_are_those_of_the_saved_results(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text())
    replace_blocks(
        copy,
        {
            "errors": error_table(_read(PRETRAINED / "default.json")["errors"]),
            "properties": property_table(_read(PRETRAINED / "properties.json")["errors"]),
            "comparison": short_table(_read(RESULTS / "properties.json")),
            "speed": (RESULTS / "speed.md").read_text(),
        },
    )
    assert copy.read_text() == README.read_text()


def test_numbers_of_the_text_are_those_of_the_saved_results() -> None:
    solids = _read(RESULTS / "solids.json")
    lengths = solids["lattice"]["summary"]["ours"]["lengths"]
    bulk = solids["bulk modulus"]["summary"]["ours"]
    shear = _read(RESULTS / "matcalc.json")["summary"]
    transfer = _read(RESULTS / "transfer_wbm972.json")["errors"]
    flagged = transfer["out of domain"]["structures"] / transfer["all"]["structures"]
    expected = (
        f"within {100 * lengths:.1f} % (median)",
        f"{100 * bulk['all']:.0f} % for bulk ({bulk['n_all']} solids)",
        f"{100 * shear['median_error']['shear_modulus_elastic']:.0f} % for shear moduli "
        f"({shear['solids']})",
        f"err by {transfer['all']['mae']:.3f} eV/atom, it flags {100 * flagged:.0f} %",
    )
    text = README.read_text()
    assert [words for words in expected if words not in text] == []


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
