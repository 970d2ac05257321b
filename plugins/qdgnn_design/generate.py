"""From a family and wanted properties to new members: fine-tuning, protocol, `qdgnn generate`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import click
import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from qdgnn_ase import Predictor, read_structures, reduced_formula
from qdgnn_design.evaluate import Evaluator, Values, surrogate
from qdgnn_design.filters import Verdict, geometry_residuals
from qdgnn_design.generator import Generator, GeneratorConfig, sample, train_generator
from qdgnn_design.oxidation import smact_valid
from qdgnn_design.prototype import Prototype, find_prototype
from qdgnn_design.targets import Target, is_hit, parse_target, score, squash

console = Console(markup=False)
_FINE_RATE = 2e-3
_INVALID = -10.0
"""Reward of a structure that is not valid or has no values."""
_ENTROPY = 0.3
"""Weight of -log p in the reward of fine-tuning: the decoder must not end at one structure."""


@dataclass(slots=True)
class Judge:
    """Values of structures from an evaluator, each structure once; counts the calls.

    Args:
        evaluator: Gives the values.
        targets: What is wanted.
    """

    evaluator: Evaluator
    targets: Sequence[Target]
    calls: int = 0
    _known: dict[str, Values | str] = field(default_factory=dict)

    def __call__(self, structures: Sequence[Atoms]) -> list[Values | str]:
        """Values or the reason why there are none; an invalid structure is not evaluated."""
        keys = [_key(atoms) for atoms in structures]
        fresh: dict[str, Atoms] = {}
        for key, atoms in zip(keys, structures, strict=True):
            if key in self._known or key in fresh:
                continue
            verdict = Verdict(geometry_residuals(atoms))
            if verdict.passed:
                fresh[key] = atoms
            else:
                self._known[key] = "; ".join(verdict.reasons)
        self.calls += len(fresh)
        self._known |= dict(zip(fresh, self.evaluator(list(fresh.values())), strict=True))
        return [self._known[key] for key in keys]

    def reward(self, value: Values | str) -> float:
        """Squashed score, 1 more for a hit."""
        if isinstance(value, str):
            return _INVALID
        hit = is_hit(value.values, self.targets)
        return max(squash(score(value.values, self.targets, value.std)) + hit, _INVALID)


def fine_tune(
    model: Generator, prototype: Prototype, judge: Judge, *, rounds: int, batch: int, seed: int
) -> list[float]:
    """Policy gradient (REINFORCE) on the decoder of species towards what the judge rewards.

    Args:
        model: Trained; changed in place.
        prototype: Its family.
        judge: Rewards.
        rounds: Steps of the optimiser.
        batch: Structures per round; `judge` counts the unique ones.
        seed: Of the samples.

    Returns:
        Mean reward of each round.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = np.array([target.center for target in judge.targets])
    optimizer = torch.optim.Adam(model.species.parameters(), _FINE_RATE)
    rewards = []
    for _ in range(rounds):
        species, geometry, log_chance = sample(model, wanted, batch, generator)
        found = judge(prototype.decode(species, geometry))
        reward = torch.tensor([judge.reward(value) for value in found])
        rewards.append(float(reward.mean()))
        reward = reward - _ENTROPY * log_chance.detach()
        advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
        optimizer.zero_grad()
        (-(advantage * log_chance).mean()).backward()
        optimizer.step()
    return rewards


def protocol(
    samples: Sequence[Atoms], training: Sequence[Atoms], judge: Judge
) -> dict[str, float | int]:
    """What samples are worth.

    Returns:
        ``samples``; shares of all of them: ``valid`` (distances, `geometry_residuals`, and a value
        from the judge), ``neutral`` (valid, and smact finds neutral oxidation states), ``unique``
        (valid and not like an earlier one), ``novel`` (unique and not in ``training``), ``hits``
        (valid and wanted) and ``novel_hits``. Structures are alike by pymatgen's StructureMatcher
        within a reduced formula.
    """
    found = judge(samples)
    valid = [k for k, value in enumerate(found) if isinstance(value, Values)]
    unique = _unlike([samples[k] for k in valid], [])
    chosen = [samples[valid[k]] for k in unique]
    novel = {valid[unique[k]] for k in _unlike(chosen, training)}
    hits = {k for k in valid if _hits(found[k], judge.targets)}
    n = len(samples)
    return {
        "samples": n,
        "valid": len(valid) / n,
        "neutral": sum(smact_valid(samples[k]) for k in valid) / n,
        "unique": len(unique) / n,
        "novel": len(novel) / n,
        "hits": len(hits) / n,
        "novel_hits": len(hits & novel) / n,
    }


def random_members(prototype: Prototype, n: int, rng: np.random.Generator) -> list[Atoms]:
    """Each site any element that it has in the family, the family's mean geometry."""
    species = np.array(
        [[rng.choice(np.flatnonzero(row)) for row in prototype.allowed] for _ in range(n)]
    )
    return prototype.decode(species, np.zeros((n, len(prototype.mean))))


@click.command("generate")
@click.argument("structures", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    required=True,
    metavar="NAME=WANTED",
    help="A value or a range, as in qdgnn design.",
)
@click.option("--samples", "-n", "n", default=200, show_default=True)
@click.option("--rounds", default=0, show_default=True, help="Of fine-tuning by policy gradient.")
@click.option("--batch", default=64, show_default=True, help="Structures of a round.")
@click.option("--epochs", default=GeneratorConfig.epochs, show_default=True)
@click.option("--model", default="properties", show_default=True, help="Property model, the judge.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", "-o", type=Path, required=True, help="Folder.")
def generate_command(
    structures: str, targets: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Learn a family of crystals from STRUCTURES and generate members with wanted properties.

    The property model gives the values that are learned and judges the samples: hits are hits by
    its lights. Writes generated.extxyz (valid and unique, best first), protocol.json
    and protocol.md.
    """  # fmt: skip
    wanted = [parse_target(text) for text in targets]
    if bad := [target.name for target in wanted if target.goal != "range"]:
        raise click.UsageError(f"a generator needs values or ranges, got max or min of {bad}")
    try:
        prototype, members = find_prototype(every := read_structures(structures))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    training = [every[k] for k in members]
    console.print(f"{len(training)} of {len(every)} structures are of one family")
    judge = Judge(surrogate(Predictor(options["model"]), wanted), wanted)
    rows, best = _run(prototype, training, judge, options)
    output.mkdir(parents=True, exist_ok=True)
    ase.io.write(output / "generated.extxyz", best)
    document = {
        "structures": Path(structures).name,
        "members": len(training),
        "targets": [target.describe() for target in wanted],
        "tolerances": [target.tolerance for target in wanted],
        "judge": Path(options["model"]).name,
        "matcher": "pymatgen StructureMatcher, default tolerances, within a reduced formula",
        "relaxation": "none",
        "seed": options["seed"],
        "rows": rows,
    }
    (output / "protocol.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "protocol.md").write_text(markdown(document))
    _show(rows)
    console.print(f"wrote {len(best)} structures and the protocol to {output}")


def _run(
    prototype: Prototype, training: list[Atoms], judge: Judge, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[Atoms]]:
    """Rows of the protocol, and the last method's valid, unique structures, best first."""
    n, seed = options["n"], options["seed"]
    rng = np.random.default_rng(seed)
    values = judge.evaluator(training)
    known = [k for k, value in enumerate(values) if isinstance(value, Values)]
    labels = np.array(
        [[v.values[t.name] for t in judge.targets] for v in values if isinstance(v, Values)]
    )
    species, geometry = prototype.encode([training[k] for k in known])
    config = GeneratorConfig(seed=seed, epochs=options["epochs"])
    model = train_generator(prototype, species, geometry, labels, config)
    drawn = [training[k] for k in rng.integers(len(training), size=n)]
    sets = {
        "drawn from the training set": (drawn, 0),
        "random elements": (random_members(prototype, n, rng), 0),
        "generator": (_samples(model, prototype, judge, n, seed), 0),
    }
    if options["rounds"]:
        before = judge.calls
        fine_tune(
            model, prototype, judge, rounds=options["rounds"], batch=options["batch"], seed=seed + 1
        )
        spent = judge.calls - before
        name = "generator, fine-tuned"
        sets[name] = (_samples(model, prototype, judge, n, seed + 2), spent)
    rows = [
        {"method": name, "training_calls": spent} | protocol(found, training, judge)
        for name, (found, spent) in sets.items()
    ]
    return rows, _ranked(list(sets.values())[-1][0], judge)


def _samples(
    model: Generator, prototype: Prototype, judge: Judge, n: int, seed: int
) -> list[Atoms]:
    wanted = np.array([target.center for target in judge.targets])
    with torch.no_grad():
        species, geometry, _ = sample(model, wanted, n, torch.Generator().manual_seed(seed))
    return prototype.decode(species, geometry)


def _ranked(samples: Sequence[Atoms], judge: Judge) -> list[Atoms]:
    values = judge(samples)
    valid = [k for k, value in enumerate(values) if isinstance(value, Values)]
    unique = [valid[k] for k in _unlike([samples[k] for k in valid], [])]
    for k in unique:
        value = values[k]
        if isinstance(value, Values):  # all are; tells the type checker
            samples[k].info = {t.name: value.values[t.name] for t in judge.targets}
    return [samples[k] for k in sorted(unique, key=lambda k: -judge.reward(values[k]))]


def _hits(value: Values | str, targets: Sequence[Target]) -> bool:
    return isinstance(value, Values) and is_hit(value.values, targets)


def _unlike(structures: Sequence[Atoms], others: Sequence[Atoms]) -> list[int]:
    """Indices of the structures that are like no earlier one and none of the others."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    matcher, seen = StructureMatcher(), defaultdict(list)
    formulas = [reduced_formula(atoms) for atoms in structures]
    for atoms in others:
        if (formula := reduced_formula(atoms)) in formulas:
            seen[formula].append(AseAtomsAdaptor.get_structure(atoms))
    kept = []
    for k, (atoms, formula) in enumerate(zip(structures, formulas, strict=True)):
        structure = AseAtomsAdaptor.get_structure(atoms)
        if not any(matcher.fit(structure, other) for other in seen[formula]):
            seen[formula].append(structure)
            kept.append(k)
    return kept


def _key(atoms: Atoms) -> str:
    cell, positions = np.round(atoms.cell.array, 4), np.round(atoms.positions, 4)
    return f"{atoms.symbols}{cell.tolist()}{positions.tolist()}"


_SHARES = ("valid", "neutral", "unique", "novel", "hits", "novel_hits")


def markdown(document: dict[str, Any]) -> str:
    """The protocol as a table."""
    lines = [
        f"`qdgnn generate {document['structures']}`, {', '.join(document['targets'])} within "
        f"{', '.join(f'{t:g}' for t in document['tolerances'])}: {document['members']} members of "
        f"one family, {document['rows'][0]['samples']} samples, judged by `{document['judge']}`, "
        f"seed {document['seed']}, relaxation: {document['relaxation']}; likeness: "
        f"{document['matcher']}. Per cent of the samples.",
        "",
        f"| | {' | '.join(name.replace('_', ' ') for name in _SHARES)} | training calls |",
        "|---|" + "---|" * (len(_SHARES) + 1),
    ]
    for row in document["rows"]:
        shares = " | ".join(f"{100 * row[name]:.1f}" for name in _SHARES)
        lines.append(f"| {row['method']} | {shares} | {row['training_calls']} |")
    return "\n".join(lines) + "\n"


def _show(rows: Sequence[dict[str, Any]]) -> None:
    heads = [name.replace("_", "\n") for name in _SHARES]
    table = Table("% of the samples", *heads, "training\ncalls")
    for row in rows:
        shares = [f"{100 * row[name]:.1f}" for name in _SHARES]
        table.add_row(row["method"], *shares, str(row["training_calls"]))
    console.print(table)
