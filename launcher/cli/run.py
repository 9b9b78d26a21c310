"""`launch run CONFIG`, or short `launch CONFIG`."""

from pathlib import Path

import click

from launcher.cli import options

EPILOG = """\b
Examples:
  launch configs/quickstart.yaml                           on this machine
  launch configs/x.yaml --partition gpu                    on Slurm, one array over the seeds
  launch configs/x.yaml --partition gpu --time 04:00:00    attempts of at most four hours
  launch configs/x.yaml --partition gpu --dry-run          only show what would be done
"""


@click.command("run", short_help="Launch a config.", epilog=EPILOG)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--partition", type=options.SlurmName(), help="Run on Slurm, in this partition.")
@click.option(
    "--site",
    type=options.SlurmName(),
    help="Run on Slurm as slurm/sites/NAME.yaml says, in its default partition unless --partition is given. Without it, "
    "what else such a profile says is taken from $SAMEBITS_SITE, or else `default`.",
)
@click.option("--account", type=options.SlurmName(), help="Account that Slurm charges. Default: the site's.")
@click.option("--qos", type=options.SlurmName(), help="Quality of service on Slurm. Default: the site's.")
@click.option(
    "--time",
    type=options.TimeLimit(),
    help="Time limit of one attempt: minutes, HH:MM:SS or D-HH:MM:SS. A longer run saves and goes on in the "
    "next attempt. Default: the config's, else the site's.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Nodes of each run, for the same ranks. Default: the config's.",
)
@click.option(
    "--ranks",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Ranks of each run, over all nodes: for a config with training.parallel.elastic, whose bits do not depend on it.",
)
@click.option("--local", is_flag=True, help="Run on this machine, also with --site.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, batch script included; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: as JSON.")
@click.option(
    "--wait", is_flag=True, help="On Slurm: stay until all runs have ended, and exit with 0 only if all are done."
)
@click.option(
    "--allow-dirty",
    is_flag=True,
    help="Launch with uncommitted changes: the patch is kept with the runs, and they are marked as not reproducible.",
)
@options.experiments
def command(  # noqa: PLR0913 - one parameter per flag
    config: Path,
    *,
    partition: str | None,
    site: str | None,
    account: str | None,
    qos: str | None,
    time: str | None,
    nodes: int | None,
    ranks: int | None,
    local: bool,
    dry_run: bool,
    as_json: bool,
    wait: bool,
    allow_dirty: bool,
    experiments: Path | None,
) -> int:
    """Launch a config: all its seeds, here or on Slurm.

    Seeds that are done are left alone, unfinished ones go on from their newest checkpoint, queued and running ones are
    not started twice: the same command again is always right. Config and code must be committed.

    There is no flag for anything that changes a result. That stands in the config.
    """
    details = {"--account": account, "--qos": qos, "--time": time, "--nodes": nodes}
    given = [flag for flag, value in {"--partition": partition, **details}.items() if value is not None]
    if local and given:
        raise click.UsageError(f"--local runs on this machine, where {' and '.join(given)} would mean nothing.")
    if given and partition is None and site is None:
        raise click.UsageError(f"{' and '.join(given)}: for Slurm only. Add --partition NAME, or --site NAME.")
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run.")
    from launcher.launch import launch
    from launcher.plan import Flags

    flags = Flags(
        partition=partition,
        site=site,
        account=account,
        qos=qos,
        time=time,
        nodes=nodes,
        ranks=ranks,
        local=local,
        allow_dirty=allow_dirty,
        experiments=experiments,
    )
    return launch(config, flags, dry_run=dry_run, as_json=as_json, wait=wait)
