"""`qdgnn bench-sampling`: time of thermal samples once the force constants are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import click

from qdgnn_ase import measured
from qdgnn_phonons.cli import needs_phonopy

_TEMPERATURE = 300.0


@click.command()
@click.option("--multiple", default=4, show_default=True, help="Of the cubic copper cell.")
@click.option("--samples", default=100, show_default=True)
@click.option("--repeats", default=20, show_default=True, help="The least time counts.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures to it.")
@needs_phonopy
def sampling(*, multiple: int, samples: int, repeats: int, output: Path | None) -> None:
    """CPU time of samples of a copper supercell (EMT), 256 atoms if not told otherwise."""
    document = measure(multiple, samples, repeats)
    click.echo(
        f"{document['samples']} samples of {document['atoms']} atoms at {_TEMPERATURE:g} K: "
        f"{document['samples_ms']:.1f} CPU ms; the modes before them: {document['modes_ms']:.1f} "
        f"({document['machine']}, {document['date']})"
    )
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")


def measure(multiple: int, samples: int, repeats: int) -> dict[str, Any]:
    """Least CPU ms of the normal modes and of the samples, from given force constants."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from qdgnn_phonons import PhononConfig, harmonic_phonons, normal_modes, sample_displacements

    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.calc = EMT()
    phonon = harmonic_phonons(atoms, PhononConfig(supercell=(multiple,) * 3))
    modes = normal_modes(phonon)
    return {
        "atoms": len(modes.supercell),
        "samples": samples,
        "temperature": _TEMPERATURE,
        "modes_ms": _least(lambda _: normal_modes(phonon), repeats),
        "samples_ms": _least(
            lambda seed: sample_displacements(modes, _TEMPERATURE, samples, seed), repeats
        ),
        **measured(),
    }


def _least(call: Callable[[int], Any], repeats: int) -> float:
    """CPU ms of the fastest call."""
    times = []
    for seed in range(repeats):
        started = process_time()
        call(seed)
        times.append(process_time() - started)
    return 1e3 * min(times)
