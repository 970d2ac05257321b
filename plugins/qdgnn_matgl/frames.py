"""Frames for distillation: crystals strained, rattled, squeezed, substituted, in hot dynamics.

``python -m qdgnn_matgl.frames STRUCTURES OUTPUT`` labels them with `Teacher` and keeps those on
which its calculators agree; ``--relaxed`` labels the crystals as they are with `RelaxedTeacher`.
A second call goes on where the first one stopped.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import ase.io
import click
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE2
from numpy.random import Generator

from qdgnn_ase import (
    ExtrapolationWarning,
    QDGNNCalculator,
    fold_of,
    is_plausible,
    label,
    molecular_dynamics,
    rattle,
    read_structures,
    reduced_formula,
    scale_volume,
    size_ratio,
    strain,
    substitute,
)
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
_CLOSE_CUTOFF = 4.0
"""Å. An atom without a neighbour this near stays where it is in `close`."""


def strained(atoms: Atoms, rng: Generator) -> Atoms:
    """Strained alone, volume within 8 % and shear up to 0.03: elastic constants."""
    return strain(atoms, rng, 0.08, 0.03)


def near(atoms: Atoms, rng: Generator) -> Atoms:
    """Rattled by up to 0.05 Å and strained by up to 2 % in volume."""
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


def relaxing(atoms: Atoms, rng: Generator) -> Atoms:
    """A `substituted` crystal after 2-15 steps of relaxation, cell included.

    The default weights drive it: frames as in the relaxations that databases are made of.
    """
    frame = substituted(atoms, rng)
    frame.calc = _driver()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        FIRE2(FrechetCellFilter(frame), logfile=None).run(fmax=0.02, steps=int(rng.integers(2, 16)))
    frame.calc = None
    return frame


def squeezed(atoms: Atoms, rng: Generator) -> Atoms:
    """Compressed to 60-90 % along a random direction, up to 20 % wider across, then rattled."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    across = rng.uniform(1.0, 1.2)
    deformation = across * np.eye(3) + (rng.uniform(0.6, 0.9) - across) * np.outer(axis, axis)
    changed = atoms.copy()
    changed.set_cell(atoms.cell @ deformation, scale_atoms=True)
    return rattle(changed, rng, rng.uniform(0.0, 0.1))


def close(atoms: Atoms, rng: Generator) -> Atoms:
    """As `near`, but one to three atoms moved to 50-85 % of their shortest distance."""
    changed = near(atoms, rng)
    for i in rng.choice(len(atoms), size=min(len(atoms), int(rng.integers(1, 4))), replace=False):
        first, lengths, vectors = neighbor_list("idD", changed, _CLOSE_CUTOFF)
        if (mine := np.flatnonzero(first == i)).size:
            to_nearest = vectors[mine[lengths[mine].argmin()]]
            changed.positions[i] += (1 - rng.uniform(0.5, 0.85)) * to_nearest
    return changed


def dynamics(atoms: Atoms, rng: Generator) -> Atoms:
    """After 80 fs of constant-energy dynamics at 300-2000 K, at 85-110 % of the volume.

    The forces are those of the default weights: frames of hot crystals, not labels.
    """
    frame = strain(scale_volume(atoms, rng.uniform(0.85, 1.10)), rng, 0.0, 0.03)
    frame.calc = _driver()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        molecular_dynamics(
            frame,
            temperature=2 * rng.uniform(300.0, 2000.0),  # half of it becomes potential energy
            steps=40,
            timestep_fs=2.0,
            ensemble="nve",
            interval=40,
            seed=int(rng.integers(2**31)),
        )
    frame.calc = None
    del frame.arrays["momenta"]
    return frame


@cache
def _driver() -> Calculator:
    return QDGNNCalculator()


_MAKE: dict[str, Callable[[Atoms, Generator], Atoms]] = {
    "strained": strained,
    "near": near,
    "rattled": rattled,
    "hot": hot,
    "substituted": substituted,
    "dynamics": dynamics,
    "squeezed": squeezed,
    "close": close,
    "relaxing": relaxing,
}


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
            frame = _MAKE[kind](atoms, rng)
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
        return Teacher(load_sevennet(), [(_driver(), 0.0)])
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
