"""The latent generator of a prototype family, on families whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

pytest.importorskip("smact")

from qdgnn_design.evaluate import Values
from qdgnn_design.generate import generate_command
from qdgnn_design.generator import GeneratorConfig, autoencoder_loss, sample, train_generator
from qdgnn_design.judge import Judge, fine_tune
from qdgnn_design.protocol import protocol, random_members
from qdgnn_design.prototype import find_prototype
from qdgnn_design.targets import Target

CATIONS, ANIONS = ("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba"), ("F", "Cl", "Br", "O", "S", "Se")


def salt(cation: str, anion: str, shift: float = 0.0) -> Atoms:
    atoms = bulk(cation + anion, "rocksalt", a=5.0 + 0.02 * bulk(cation, "fcc", a=4).numbers[0])
    atoms.set_scaled_positions(atoms.get_scaled_positions() + np.array([0.3 + shift, 0.1, 0.0]))
    return atoms


def family() -> list[Atoms]:
    return [salt(a, b, 0.01 * k) for k, (a, b) in enumerate(product(CATIONS, ANIONS))]


def evaluator(structures: Sequence[Atoms]) -> list[Values | str]:
    return [Values({"bulk_modulus": float(atoms.numbers.mean())}) for atoms in structures]


def judge(wanted: float, tolerance: float = 1.5) -> Judge:
    target = Target(name="bulk_modulus", low=wanted, high=wanted, tolerance=tolerance)
    return Judge(evaluator, [target])


def test_decoding_inverts_encoding_but_for_the_origin() -> None:
    members = family()
    members[5].rattle(0.1, seed=1)
    prototype, chosen = find_prototype(members)
    assert chosen == list(range(48))
    decoded = prototype.decode(*prototype.encode(members))
    for before, after in zip(members, decoded, strict=True):
        assert str(before.symbols) == str(after.symbols)
        assert before.cell.cellpar() == pytest.approx(after.cell.cellpar(), abs=1e-8)
        assert before.get_distance(0, 1, mic=True) == pytest.approx(
            after.get_distance(0, 1, mic=True), abs=1e-8
        )
    assert prototype.allowed.sum(axis=1).tolist() == [8, 6]


def test_other_structures_are_left_out_or_refused() -> None:
    molecule = salt("Na", "Cl")
    molecule.pbc = False
    assert find_prototype([*family(), bulk("Cu", cubic=True), molecule])[1] == list(range(48))
    cells = [bulk("Cu", a=3.6, cubic=True) for _ in range(4)]
    cells[3].positions[1, 2] += 0.5 * 3.6  # centred: 3/8 of the cell for this atom
    assert find_prototype(cells)[1] == [0, 1, 2]
    with pytest.raises(ValueError, match="at least half of the structures must have the 2 sites"):
        find_prototype([salt("Na", "Cl"), *[bulk("Cu", cubic=True)] * 2])
    with pytest.raises(ValueError, match="at least one"):
        find_prototype([])


@pytest.mark.slow
def test_generator_meets_what_is_wanted() -> None:
    """Twice as many hits as random members, for a low and for a high target."""
    members = family()
    prototype, _ = find_prototype(members)
    values = np.array([[atoms.numbers.mean()] for atoms in members])
    config = GeneratorConfig(epochs=150, batch=16)
    model = train_generator(prototype, *prototype.encode(members), values, config)
    rng = np.random.default_rng(0)
    for wanted in (9.0, 27.0):
        species, geometry, log_chance = sample(
            model, np.array([wanted]), 100, torch.Generator().manual_seed(0)
        )
        assert (prototype.allowed[np.arange(2), species]).all()
        assert (log_chance <= 0).all()
        found = protocol(prototype.decode(species, geometry), members, judge(wanted))
        chance = protocol(random_members(prototype, 100, rng), members, judge(wanted))
        assert found["valid"] > 0.9
        assert found["hits"] > 2 * chance["hits"], (wanted, found, chance)
        assert found["novel"] == 0.0, "all 48 members were given"
    again = train_generator(prototype, *prototype.encode(members), values, config)
    weights = zip(model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    with pytest.raises(ValueError, match="must be finite"):
        train_generator(prototype, *prototype.encode(members), values * np.nan, config)


def test_each_part_of_the_loss_counts() -> None:
    members = family()
    prototype, _ = find_prototype(members)
    species, geometry = prototype.encode(members)
    values = np.array([[atoms.numbers.mean()] for atoms in members])
    model = train_generator(prototype, species, geometry, values, GeneratorConfig(epochs=1))
    shares = torch.eye(model.n_elements)[torch.as_tensor(species)]
    tensors = shares, torch.as_tensor(geometry).float(), torch.as_tensor(values).float()

    def loss(**weights: float) -> float:
        torch.manual_seed(0)
        config = GeneratorConfig(**weights)  # type: ignore[arg-type]
        return autoencoder_loss(model, *tensors, config).item()

    none = {"beta": 0.0, "predictor": 0.0, "consistency": 0.0}
    assert all(loss(**none | {name: 1.0}) > loss(**none) for name in none)


@pytest.mark.slow
def test_fine_tuning_raises_the_reward_and_counts_calls() -> None:
    members = family()
    prototype, _ = find_prototype(members)
    values = np.array([[atoms.numbers.mean()] for atoms in members])
    model = train_generator(
        prototype, *prototype.encode(members), values, GeneratorConfig(epochs=5, batch=16)
    )
    tuned = judge(27.0)
    rewards = fine_tune(model, prototype, tuned, rounds=25, batch=32, seed=0)
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.5
    assert 0 < tuned.calls <= 25 * 32


def test_protocol_counts() -> None:
    """Of five: one twice, one known, one with atoms on each other."""
    broken = salt("Na", "F")
    broken.positions[1] = broken.positions[0] + 0.1
    samples = [salt("Na", "Cl"), salt("Na", "Cl"), salt("K", "Br"), salt("Mg", "F"), broken]
    found = protocol(samples, [salt("K", "Br")], judge(14.0, 1.0))
    assert found == {
        "samples": 5, "valid": 0.8, "neutral": 0.6, "unique": 0.6, "novel": 0.4, "hits": 0.4,
        "novel_hits": 0.2,
    }  # fmt: skip


def test_command(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "salts.extxyz", family())
    arguments = [str(tmp_path / "salts.extxyz"), "-o", str(tmp_path / "out"), "-n", "20"]
    arguments += ["--rounds", "2", "--batch", "8", "--epochs", "20", "--target"]
    wrong = CliRunner().invoke(generate_command, [*arguments, "band_gap=max"])
    assert "needs values or ranges" in wrong.output
    done = CliRunner().invoke(generate_command, [*arguments, "band_gap=4~1"])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert [row["method"] for row in document["rows"]][2:] == ["generator", "generator, fine-tuned"]
    table = (tmp_path / "out" / "protocol.md").read_text()
    assert f"| generator, fine-tuned | {100 * document['rows'][3]['valid']:.1f} |" in table
    written = ase.io.read(tmp_path / "out" / "generated.extxyz", ":")
    misses = [abs(atoms.info["band_gap"] - 4) for atoms in written]
    assert misses == sorted(misses)
