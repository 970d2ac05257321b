"""Floor 7: the command line. Subcommands are entry points of the group ``qdgnn_ase.commands``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points

import click

GROUP = "qdgnn_ase.commands"


class LazyGroup(click.Group):
    """Group whose subcommands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed subcommands."""
        return sorted({point.name for point in entry_points(group=GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand; None if there is none of that name."""
        points: list[EntryPoint] = list(entry_points(group=GROUP, name=cmd_name))
        if not points:
            return None
        command: click.Command = points[0].load()
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qdgnn-ase")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPU threads of one computation.",
)
def group(threads: int) -> None:
    """Quantum-informed graph neural network for energy materials."""
    # threads that wait spin: on a busy machine or a small cell two are slower than one
    import torch

    torch.set_num_threads(threads)


def main() -> None:
    """Entry point of `qdgnn`: bad input ends with one line and exit code 2, not a traceback."""
    # before numpy is loaded: its waiting threads spin, and on a busy machine the 3x3 matrices of a
    # cell relaxation then take 45 times as long
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ase.calculators.calculator import CalculatorError

    try:
        group(standalone_mode=True)
    except (CalculatorError, FloatingPointError, OSError, ValueError) as error:
        click.echo(f"qdgnn: {error}", err=True)
        sys.exit(2)
