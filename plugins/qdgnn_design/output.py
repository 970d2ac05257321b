"""Candidates as files: extended XYZ, CIF, an ASE database, JSON. Each is written whole or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.db import connect

from qdgnn_design.run import DesignResult, Ranked

Row = dict[str, Any]


def candidate_rows(result: DesignResult) -> list[Row]:
    """One plain dict per candidate, best first."""
    return [_row(k, ranked) for k, ranked in enumerate(result.candidates, start=1)]


def write_candidates(result: DesignResult, out: Path) -> list[Path]:
    """Write all files into a folder.

    Returns:
        The files.
    """
    rows = candidate_rows(result)
    structures = [_structure(ranked) for ranked in result.candidates]
    labelled = [_with_info(a, row) for a, row in zip(structures, rows, strict=True)]
    document = {
        "date": date.today().isoformat(),
        "targets": [target.describe() for target in result.problem.targets],
        "summary": result.summary(),
        "candidates": rows,
    }
    files = {
        out / "candidates.extxyz": lambda p: ase.io.write(p, labelled, format="extxyz"),
        out / "candidates.db": lambda p: _database(p, structures, rows),
        out / "result.json": lambda p: p.write_text(json.dumps(document, indent=1) + "\n"),
    }
    for row, atoms in zip(rows, structures, strict=True):
        files[out / "cif" / f"{row['rank']:02d}_{atoms.symbols}.cif"] = _cif_writer(atoms)
    for old in (out / "cif").glob("*.cif"):  # of a run with more or other candidates
        if old not in files:
            old.unlink()
    for path, write in files.items():
        _write_whole(path, write)
    return list(files)


def _structure(ranked: Ranked) -> Atoms:
    """The relaxed structure where there is one."""
    atoms = ranked.outcome.candidate.atoms if ranked.relaxed is None else ranked.relaxed
    copy: Atoms = atoms.copy()
    copy.calc = None
    return copy


def _row(rank: int, ranked: Ranked) -> Row:
    outcome, values = ranked.outcome, ranked.outcome.values
    relaxed = ranked.relaxed_values
    return {
        "rank": rank,
        "formula": str(outcome.candidate.atoms.symbols),
        "call": outcome.call,
        "score": outcome.score,
        "hit": outcome.hit,
        "values": {} if values is None else values.values,
        "std": {} if values is None else values.std,
        "values_relaxed": None if relaxed is None else relaxed.values,
        "history": list(outcome.candidate.history),
        "passed": ranked.verdict.passed,
        "filter": ranked.verdict.total,
        "reasons": ranked.verdict.reasons,
        "residuals": {r.name: [r.value, r.tolerance, r.unit] for r in ranked.verdict.residuals},
    }


def _with_info(atoms: Atoms, row: Row) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.info = {key: row[key] for key in ("rank", "call", "score", "hit", "passed", "filter")}
    copy.info |= {name: float(value) for name, value in row["values"].items()}
    copy.info |= {f"{name}_std": float(value) for name, value in row["std"].items()}
    if row["values_relaxed"]:
        copy.info |= {f"{name}_relaxed": v for name, v in row["values_relaxed"].items()}
    copy.info["history"] = "; ".join(row["history"])
    copy.info["reasons"] = "; ".join(row["reasons"])
    return copy


def _database(path: Path, structures: list[Atoms], rows: list[Row]) -> None:
    with connect(str(path), type="db", append=False) as database:
        for atoms, row in zip(structures, rows, strict=True):
            numbers = {key: row[key] for key in ("rank", "call", "score", "hit", "passed")}
            numbers |= {name: float(value) for name, value in row["values"].items()}
            database.write(atoms, key_value_pairs=numbers, data=row)


def _cif_writer(atoms: Atoms) -> Callable[[Path], object]:
    return lambda path: ase.io.write(path, atoms, format="cif")


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    write(beside)
    beside.replace(path)
