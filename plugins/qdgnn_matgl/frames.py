"""Frames for distillation: crystals as given, strained, rattled, compressed and substituted.

``python -m qdgnn_matgl.frames STRUCTURES M3GNET_FOLDER OUTPUT`` labels them with `Teacher` and
keeps those on which its calculators agree. A second call goes on where the first one stopped.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import ase.io
import click
import numpy as np
import torch
from ase import Atoms
from numpy.random import Generator

from qdgnn_ase import (
    fold_of,
    is_plausible,
    label,
    rattle,
    read_structures,
    reduced_formula,
    scale_volume,
    size_ratio,
    strain,
    substitute,
)
from qdgnn_matgl.teacher import Teacher, disagreement, load_chgnet, load_m3gnet

SHARES = {"near": 0.50, "rattled": 0.25, "hot": 0.15, "substituted": 0.10}
"""Share of each kind of frame."""
MAX_FORCE = 30.0
"""Largest force of a frame that is kept, eV/Å."""
FORCE_FLOOR = 0.1
"""Added to the mean force, eV/Å, when the disagreement is set in relation to it."""
_SHORTEST = {"near": 0.5, "rattled": 0.5, "hot": 0.55, "substituted": 0.55}  # of the radii's sum
_TRIES = 10


def near(atoms: Atoms, rng: Generator) -> Atoms:
    """As given (one in five), or rattled by up to 0.05 Å and strained by up to 2 % in volume."""
    if rng.random() < 0.2:
        return atoms.copy()
    return rattle(strain(atoms, rng, 0.02, 0.01), rng, rng.uniform(0.0, 0.05))


def rattled(atoms: Atoms, rng: Generator) -> Atoms:
    """Rattled by 0.05-0.25 Å, volume within 10 %, shear up to 0.05."""
    return rattle(strain(atoms, rng, 0.10, 0.05), rng, rng.uniform(0.05, 0.25))


def hot(atoms: Atoms, rng: Generator) -> Atoms:
    """Rattled by 0.1-0.35 Å at 65-108 % of the volume: forces and pressures as in hot MD."""
    squeezed = scale_volume(atoms, rng.uniform(0.65, 1.08))
    return rattle(strain(squeezed, rng, 0.0, 0.08), rng, rng.uniform(0.10, 0.35))


def substituted(atoms: Atoms, rng: Generator) -> Atoms:
    """One element or one site replaced, volume by covalent radii within 5 %, then `near`."""
    changed = substitute(atoms, rng, whole_species=bool(rng.random() < 0.7))
    changed = scale_volume(changed, size_ratio(changed, atoms))
    return rattle(strain(changed, rng, 0.05, 0.02), rng, rng.uniform(0.0, 0.15))


_MAKE: dict[str, Callable[[Atoms, Generator], Atoms]] = {
    "near": near,
    "rattled": rattled,
    "hot": hot,
    "substituted": substituted,
}


def generate(structures: Sequence[Atoms], n: int, seed: int = 0) -> Iterator[Atoms]:
    """``n`` frames of all kinds in random order, each with ``info["key"]`` and ``info["kind"]``.

    Every structure is used once before one is used again. No frame has a reduced formula of the
    test fold of `qdgnn_ase.fold_of`. Frame i depends on the structures, the seed and i alone.

    Raises:
        ValueError: If no structure is outside the test fold.
    """
    sources = [atoms for atoms in structures if not in_test_fold(atoms)]
    if not sources:
        raise ValueError(f"one structure must be outside the test fold, got {len(structures)}")
    order = np.random.default_rng(seed).permutation(len(sources))
    kinds = list(SHARES)
    for index in range(n):
        rng = np.random.default_rng([seed, index])
        kind = str(rng.choice(kinds, p=list(SHARES.values())))
        frame = _plausible(sources[order[index % len(order)]], kind, rng)
        if frame is not None:
            frame.info = {"key": f"{kind}-{seed}-{index:06d}", "kind": kind}
            yield frame


def _plausible(atoms: Atoms, kind: str, rng: Generator) -> Atoms | None:
    for _ in range(_TRIES):
        try:
            frame = _MAKE[kind](atoms, rng)
        except ValueError:  # nothing to substitute
            return None
        if is_plausible(frame, _SHORTEST[kind]) and not in_test_fold(frame):
            return frame
    return None


def in_test_fold(atoms: Atoms) -> bool:
    """Whether the composition is one that `qdgnn_ase.fit` tests on by default."""
    return fold_of(reduced_formula(atoms)) == "test"


def select(frames: Sequence[Atoms], share: float = 0.7) -> list[Atoms]:
    """Labelled frames without huge forces, and of each kind those with the best agreement.

    Args:
        frames: Frames labelled by `Teacher` with `disagreement` as annotation.
        share: Part of the frames of each kind to keep, by force disagreement relative to the mean
            force + `FORCE_FLOOR`.

    Returns:
        The kept frames in their order.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    sizes = [np.linalg.norm(atoms.get_forces(), axis=1) for atoms in frames]
    by_kind: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for index, (atoms, size) in enumerate(zip(frames, sizes, strict=True)):
        if size.max() <= MAX_FORCE:
            relative = atoms.info["force_disagreement"] / (size.mean() + FORCE_FLOOR)
            by_kind[atoms.info["kind"]].append((relative, index))
    kept: set[int] = set()
    for ranked in by_kind.values():
        kept |= {index for _, index in sorted(ranked)[: round(share * len(ranked))]}
    return [frames[index] for index in sorted(kept)]


def read_rows(path: str | Path, max_atoms: int) -> list[Atoms]:
    """Crystals of a JSON lines file (.gz too) with lattice (Å), species and frac_coords."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Atoms(r["species"], scaled_positions=r["frac_coords"], cell=r["lattice"], pbc=True)
        for r in rows
        if len(r["species"]) <= max_atoms
    ]


def make_teacher(m3gnet: str) -> Teacher:
    """M3GNet and CHGNet on one thread."""
    torch.set_num_threads(1)
    return Teacher(load_m3gnet(m3gnet), [load_chgnet()])


@click.command()
@click.argument("structures", type=click.Path(exists=True, dir_okay=False))
@click.argument("m3gnet", type=click.Path(exists=True, file_okay=False))
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("-n", "n", default=30_000, show_default=True, help="Frames to label.")
@click.option("--max-atoms", default=24, show_default=True, help="Largest structure taken.")
@click.option("--keep", default=0.7, show_default=True, help="Share of each kind to keep.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Processes.")
def main(
    *,
    structures: str,
    m3gnet: str,
    output: str,
    n: int,
    max_atoms: int,
    keep: float,
    seed: int,
    jobs: int,
) -> None:
    """Label frames made from STRUCTURES (JSON lines) with the M3GNET folder's model and CHGNet.

    All labelled frames go to OUTPUT with `.all.extxyz` appended, those kept for training to OUTPUT.
    """
    everything = f"{output}.all.extxyz"
    with click.progressbar(length=n, label="Labelling") as bar:
        counts = label(
            generate(read_rows(structures, max_atoms), n, seed),
            partial(make_teacher, m3gnet),
            everything,
            jobs=jobs,
            annotate=disagreement,
            progress=lambda _: bar.update(1),
        )
    kept = select(read_structures(everything), keep)
    ase.io.write(output, kept, format="extxyz")
    click.echo(f"{counts}; {len(kept)} frames kept in {output}")


if __name__ == "__main__":
    main()
