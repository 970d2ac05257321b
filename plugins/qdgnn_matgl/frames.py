"""Labelled frames for distillation.

``python -m qdgnn_matgl.frames STRUCTURES OUTPUT`` makes frames of all `KINDS`, labels them
with `Teacher` and keeps those on which its calculators agree; ``--relaxed`` labels the crystals as
they are with `RelaxedTeacher`. A second call goes on where the first one stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import ase.io
import click
import numpy as np
import torch
from ase import Atoms
from numpy.random import Generator

from qdgnn_ase import fold_of, is_plausible, label, read_structures, reduced_formula
from qdgnn_matgl.kinds import KINDS, driver
from qdgnn_matgl.teacher import (
    RelaxedTeacher,
    Teacher,
    disagreement,
    load_chgnet,
    load_m3gnet,
    load_sevennet,
)

SHARES = {
    "strained": 0.20,
    "near": 0.24,
    "rattled": 0.16,
    "hot": 0.08,
    "substituted": 0.16,
    "dynamics": 0.04,
    "squeezed": 0.06,
    "close": 0.06,
    "relaxing": 0.16,
}
"""Shares of the kinds of frames, relative to each other."""
MAX_FORCE = 150.0
"""Largest force of a frame that is kept, eV/Å."""
FORCE_FLOOR = 0.1
"""Added to the mean force, eV/Å, when the disagreement is set in relation to it."""
_SHORTEST = 0.5
"""Shortest distance of a frame that is kept, in sums of covalent radii."""
_SHORTEST_OF_KIND = {"hot": 0.55, "substituted": 0.55, "squeezed": 0.42, "close": 0.42}
_TRIES = 10


def generate(
    structures: Sequence[Atoms], n: int, seed: int = 0, kinds: Sequence[str] = tuple(SHARES)
) -> Iterator[Atoms]:
    """``n`` frames of the kinds in random order, each with ``info["key"]`` and ``info["kind"]``.

    Every structure is used once before one is used again. No frame has a reduced formula of the
    test fold of `qdgnn_ase.fold_of`. Frame i depends on the structures, the seed, the kinds and i
    alone; the kinds keep the proportions of `SHARES`.

    Raises:
        ValueError: If no structure is outside the test fold.
    """
    sources = [atoms for atoms in structures if not in_test_fold(atoms)]
    if not sources:
        raise ValueError(f"one structure must be outside the test fold, got {len(structures)}")
    order = np.random.default_rng(seed).permutation(len(sources))
    shares = np.array([SHARES[kind] for kind in kinds])
    for index in range(n):
        rng = np.random.default_rng([seed, index])
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        frame = _plausible(sources[order[index % len(order)]], kind, rng)
        if frame is not None:
            frame.info = {"key": f"{kind}-{seed}-{index:06d}", "kind": kind}
            yield frame


def as_given(structures: Sequence[Atoms], n: int, seed: int = 0) -> Iterator[Atoms]:
    """``n`` structures outside the test fold in random order, keys and kind as in `generate`."""
    for index in np.random.default_rng(seed).permutation(len(structures))[:n]:
        if not in_test_fold(structures[index]):
            frame = structures[index].copy()
            frame.info = {"key": f"relaxed-{index:06d}", "kind": "relaxed"}
            yield frame


def _plausible(atoms: Atoms, kind: str, rng: Generator) -> Atoms | None:
    for _ in range(_TRIES):
        try:
            frame = KINDS[kind](atoms, rng)
        except (ValueError, RuntimeError, FloatingPointError):  # nothing to substitute, explosion
            return None
        if is_plausible(frame, _SHORTEST_OF_KIND.get(kind, _SHORTEST)) and not in_test_fold(frame):
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


def make_relaxed_teacher(m3gnet: str | None = None) -> RelaxedTeacher:
    """Energy of SevenNet-0, or of M3GNet where its folder is given, and zero forces."""
    torch.set_num_threads(1)
    return RelaxedTeacher(load_m3gnet(m3gnet) if m3gnet else load_sevennet())


def make_teacher(m3gnet: str | None = None, chgnet: bool = True) -> Teacher:
    """SevenNet-0; with M3GNet's folder M3GNet, and CHGNet beside it with twice its weight.

    What `select` ranks SevenNet-0's labels by is the distance from the default weights' forces.
    """
    torch.set_num_threads(1)
    if m3gnet is None:
        return Teacher(load_sevennet(), [(driver(), 0.0)])
    return Teacher(load_m3gnet(m3gnet), [(load_chgnet(), 2.0)] if chgnet else [])


@click.command()
@click.argument("structures", type=click.Path(exists=True, dir_okay=False))
@click.argument("output", type=click.Path(dir_okay=False))
@click.option(
    "--m3gnet",
    type=click.Path(exists=True, file_okay=False),
    help="Model folder: M3GNet and CHGNet label in place of SevenNet-0.",
)
@click.option("-n", "n", default=30_000, show_default=True, help="Frames to label.")
@click.option("--max-atoms", default=24, show_default=True, help="Largest structure taken.")
@click.option("--keep", default=0.7, show_default=True, help="Share of each kind to keep.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(SHARES)),
    multiple=True,
    default=tuple(SHARES),
    help="Kinds of frames; all without it.",
)
@click.option(
    "--chgnet/--no-chgnet",
    default=True,
    show_default=True,
    help="With --m3gnet: mean forces and stress of it and CHGNet (twice), or M3GNet's alone.",
)
@click.option("--holds", multiple=True, help="Only structures with one of these elements.")
@click.option("--relaxed", is_flag=True, help="The crystals as given: DFT has relaxed them.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Processes.")
def main(
    *,
    structures: str,
    output: str,
    m3gnet: str | None,
    n: int,
    max_atoms: int,
    keep: float,
    kinds: tuple[str, ...],
    chgnet: bool,
    holds: tuple[str, ...],
    relaxed: bool,
    seed: int,
    jobs: int,
) -> None:
    """Label frames made from STRUCTURES (JSON lines) with SevenNet-0, or with M3GNet and CHGNet.

    All labelled frames go to OUTPUT with `.all.extxyz` appended, those kept for training to OUTPUT.
    """
    if not (m3gnet or chgnet):
        raise click.UsageError(
            "--no-chgnet needs --m3gnet FOLDER: SevenNet-0 labels without CHGNet"
        )
    rows = [atoms for atoms in read_structures(structures) if len(atoms) <= max_atoms]
    if holds:
        rows = [atoms for atoms in rows if set(holds) & set(atoms.get_chemical_symbols())]
    with click.progressbar(length=n, label="Labelling") as bar:
        run = partial(label, jobs=jobs, progress=lambda _: bar.update(1))
        if relaxed:
            click.echo(run(as_given(rows, n, seed), partial(make_relaxed_teacher, m3gnet), output))
            return
        everything = f"{output}.all.extxyz"
        teacher = partial(make_teacher, m3gnet, chgnet)
        frames = generate(rows, n, seed, kinds)
        counts = run(frames, teacher, everything, annotate=disagreement)
    kept = select(read_structures(everything), keep)
    ase.io.write(output, kept, format="extxyz")
    click.echo(f"{counts}; {len(kept)} frames kept in {output}")


if __name__ == "__main__":
    main()
