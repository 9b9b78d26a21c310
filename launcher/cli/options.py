"""Types and options that several verbs share."""

import re
from pathlib import Path
from typing import Any

import click

from launcher import walltime


class SlurmName(click.ParamType[str]):
    """A name that Slurm gave: one word, which cannot pass for an option or start a new line of a script."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.,@:+-]*", str(value), re.ASCII):
            self.fail(f"{value!r} is not one plain word.", param, ctx)
        return str(value)


class TimeLimit(click.ParamType[str]):
    """Slurm's notation, checked and kept as it was given."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            walltime.minutes(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}.", param, ctx)
        return str(value)


experiments = click.option(
    "--experiments",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The folder of all trees. Default: the site's, else `experiments` at the top of the repository.",
)
seed = click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Only the run of this seed.")
