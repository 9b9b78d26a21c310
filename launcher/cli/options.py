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


class Span(click.ParamType[float]):
    """`12h`, `30d`, `8w` or a plain number of days, in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]{1,6})([hdw]?)", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not a span such as 12h, 30d or 8w.", param, ctx)
        return int(found[1]) * {"h": 3600, "w": 7 * 86400}.get(found[2], 86400)


experiments = click.option(
    "--experiments",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The folder of all trees. Default: the site's, else `experiments` at the top of the repository.",
)
seed = click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Only the run of this seed.")
