"""`launch cancel NAME`."""

from pathlib import Path

import click

from launcher.cli import options

EPILOG = """\b
Examples:
  launch cancel x             all runs of experiments/x
  launch cancel x --seed 2    one of them
"""


@click.command("cancel", epilog=EPILOG)
@click.argument("name")
@options.seed
@options.experiments
def command(name: str, *, seed: int | None, experiments: Path | None) -> int:
    """Stop an experiment's runs for good.

    They save first where there is time, and Slurm does not start them again. Launching the config again goes on from
    there.
    """
    from launcher.experiments import existing_tree

    tree = existing_tree(experiments, name)
    from launcher.cancel import cancel

    return cancel(tree, seed)
