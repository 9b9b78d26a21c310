"""`launch status [NAME]`."""

from pathlib import Path

import click

from launcher.cli import options

EPILOG = """\b
Examples:
  launch status               all experiments
  launch status x             the runs of experiments/x, one line per seed
  launch status x --json      the same for a program
"""


@click.command("status", epilog=EPILOG)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options.experiments
def command(name: str | None, *, as_json: bool, experiments: Path | None) -> int:
    """What has become of the runs.

    Right with and without Slurm's accounting: what a run did stands in its tree; Slurm is only asked what it waits for.
    """
    from launcher.experiments import existing_folder, existing_tree

    folder = existing_folder(experiments) if name is None else existing_tree(experiments, name).root.parent
    from launcher.status import show_status

    return show_status(folder, name and Path(name).name, as_json)
