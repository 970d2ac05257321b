"""Published potentials beside ours on the same frames, for the model card.

Their errors do not depend on our weights: a cache file holds them frame by frame, so that a new
card costs the evaluation of ours only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from qdgnn_ase import Evaluation, FrameError, Split, frame_errors, paired_difference

METRICS = {"energy_mae": "E, eV/atom", "forces_mae": "F, eV/Å", "stress_mae": "S, GPa"}
Loader = Callable[[], Calculator]
ZERO = "zero forces"


class ZeroForces(Calculator):  # type: ignore[misc]  # ASE is untyped
    """Predicts that nothing moves: what small forces make of every error."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Zero forces, unknown energy."""
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = {"energy": np.nan, "forces": np.zeros((len(self.atoms), 3))}


def peers(m3gnet: str | None, chgnet: bool) -> dict[str, Loader]:
    """Name -> loader of the peers that are asked for.

    Args:
        m3gnet: Folder of the M3GNet model.
        chgnet: Whether to load CHGNet.
    """
    from qdgnn_matgl import load_chgnet, load_m3gnet

    found: dict[str, Loader] = {}
    if m3gnet:
        found["M3GNet-MP-2021"] = lambda: load_m3gnet(m3gnet)
    if chgnet:
        found["CHGNet"] = load_chgnet
    return found


def peer_errors(
    peers: dict[str, Loader],
    files: Sequence[str],
    *,
    max_atoms: int,
    split: Split,
    cache: Path | None = None,
) -> dict[str, dict[str, Evaluation]]:
    """Peer -> file -> errors on the frames of the split.

    CHGNet's energies are dropped: they carry corrections, their reference is another one.

    Args:
        peers: Name -> loader; a peer is loaded when one of its files is not in the cache.
        files: Labelled structures.
        max_atoms: Larger structures are skipped.
        split: The frames that are evaluated.
        cache: JSON file, read and extended.
    """
    known: dict[str, Any] = json.loads(cache.read_text()) if cache and cache.is_file() else {}
    result: dict[str, dict[str, Evaluation]] = {}
    for peer, load in peers.items():
        calculator = None
        result[peer] = {}
        for name in files:
            digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
            key = json.dumps([peer, digest, max_atoms, asdict(split)])
            if key not in known:
                calculator = calculator or load()
                rows = frame_errors(calculator, name, max_atoms=max_atoms, split=split)
                known[key] = asdict(rows)
                if cache:
                    cache.write_text(json.dumps(known))
            evaluation = _evaluation(known[key])
            result[peer][Path(name).name] = (
                _without_energies(evaluation) if peer == "CHGNet" else evaluation
            )
    return result


def _evaluation(values: dict[str, Any]) -> Evaluation:
    errors = [FrameError(**row) for row in values["errors"]]
    return Evaluation(errors, values["skipped"], values["seconds"])


def _without_energies(evaluation: Evaluation) -> Evaluation:
    errors = [replace(error, energy=float("nan")) for error in evaluation.errors]
    return replace(evaluation, errors=errors)


def compare(
    ours: dict[str, Evaluation], theirs: dict[str, dict[str, Evaluation]]
) -> dict[str, dict[str, Any]]:
    """File -> peer -> ``paired_difference`` of ours and the peer, and ``ms_per_atom`` of the peer.

    Args:
        ours: File -> errors of our model.
        theirs: Peer -> file -> errors.
    """
    return {
        name: {
            peer: paired_difference(mine.errors, files[name].errors)
            | {"skipped": files[name].skipped, "ms_per_atom": files[name].report()["ms_per_atom"]}
            for peer, files in theirs.items()
        }
        for name, mine in ours.items()
    }


def cells(comparison: dict[str, dict[str, Any]], peer: str) -> dict[str, int]:
    """How many metrics of all files ours wins against a peer: cells, lower, surely lower or higher.

    Sure is a 95 % interval of the difference that excludes 0.
    """
    rows = [row[peer][m] for row in comparison.values() for m in METRICS if m in row[peer]]
    return {
        "cells": len(rows),
        "lower": sum(row["difference"] < 0 for row in rows),
        "surely_lower": sum(row["interval"][1] < 0 for row in rows),
        "surely_higher": sum(row["interval"][0] > 0 for row in rows),
    }


def peer_section(comparison: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown lines: the table and the count of cells."""
    rows = comparison.values()
    peers = [peer for peer in next(iter(rows)) if peer != ZERO]
    columns = [(p, m) for p in peers for m in METRICS if any(m in row[p] for row in rows)]
    heads = [f"{peer}: {METRICS[metric]}" for peer, metric in columns]
    return [
        f"## Beside {' and '.join(peers)} on the same frames",
        "Mean absolute errors, ours / peer; in brackets the 95 % interval of ours - peer, paired "
        "over formulas (negative: ours is better).",
        "",
        f"| file | {' | '.join(heads)} | F of zero forces, eV/Å |",
        "|---|" + "---|" * (len(columns) + 1),
        *[_line(name, row, columns) for name, row in comparison.items()],
        "",
        *[_count(comparison, peer) for peer in peers],
        "",
    ]


def _line(name: str, row: dict[str, Any], columns: Sequence[tuple[str, str]]) -> str:
    cells = [_cell(row[peer].get(metric)) for peer, metric in columns]
    return f"| {name} | {' | '.join(cells)} | {row[ZERO]['forces_mae']['second']:.3f} |"


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return "-"
    low, high = value["interval"]
    return f"{value['first']:.3f} / {value['second']:.3f} ({low:+.3f} to {high:+.3f})"


def _count(comparison: dict[str, dict[str, Any]], peer: str) -> str:
    won = cells(comparison, peer)
    return (
        f"- {peer}: ours is lower in {won['lower']} of {won['cells']} cells, in "
        f"{won['surely_lower']} with the interval below 0; higher with the interval above 0 in "
        f"{won['surely_higher']}."
    )
