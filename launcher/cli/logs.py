"""`launch logs NAME`."""

from pathlib import Path

import click

from launcher.cli import options

EPILOG = """\b
Examples:
  launch logs x                         all attempts of all seeds
  launch logs x --seed 1 -f             follow one run until it ends, over preemptions
  launch logs x --seed 1 --attempt 1    only what its first attempt wrote
"""


@click.command("logs", epilog=EPILOG)
@click.argument("name")
@options.seed
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on showing what is written, until the run has ended. Ctrl-C only ends this.",
)
@click.option("--attempt", type=click.IntRange(1), metavar="K", help="Only this attempt.")
@options.experiments
def command(name: str, *, seed: int | None, follow: bool, attempt: int | None, experiments: Path | None) -> int:
    """What a run has written, attempt by attempt.

    Each attempt has a log of its own in experiments/NAME/logs, which is never truncated.
    """
    from launcher.experiments import existing_tree

    tree = existing_tree(experiments, name)
    from launcher.logs import show_logs

    return show_logs(tree, seed, attempt, follow)
