"""`launch chaos CONFIG`."""

from pathlib import Path

import click

from launcher.cli import options

EPILOG = """\b
Examples:
  launch chaos configs/x.yaml --local                             on this machine
  launch chaos configs/x.yaml --partition gpu --preemptor high    on Slurm, preemption among the blows
  launch chaos configs/x.yaml --local --seed 7 --blows 40         the same blows again
"""


@click.command("chaos", epilog=EPILOG)
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    help="Of the blows, not of the runs. Default: drawn, and shown.",
)
@click.option(
    "--blows", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many, over all runs."
)
@click.option("--only", multiple=True, metavar="KIND", help="Only this kind of blow; may be given more than once.")
@click.option("--local", is_flag=True, help="On this machine, without Slurm.")
@click.option("--partition", type=options.SlurmName(), help="On Slurm, in this partition.")
@click.option("--site", type=options.SlurmName(), help="On Slurm, as slurm/sites/NAME.yaml says.")
@click.option("--account", type=options.SlurmName(), help="Account that Slurm charges. Default: the site's.")
@click.option("--qos", type=options.SlurmName(), help="Quality of service on Slurm. Default: the site's.")
@click.option(
    "--preemptor",
    type=options.SlurmName(),
    metavar="PARTITION",
    help="A partition whose jobs preempt the run's. A job there takes the whole node of a run, from whoever may be preempted.",
)
@click.option(
    "--as-admin", is_flag=True, help="You are an administrator of this Slurm: nodes of the runs may be set DOWN."
)
@click.option("--stop-node", metavar="COMMAND", help="Shell command that stops the Slurm daemon of the node {node}.")
@click.option("--start-node", metavar="COMMAND", help="Shell command that lets it go on.")
@options.experiments
def command(  # noqa: PLR0913 - one parameter per flag
    config: Path,
    *,
    seed: int | None,
    blows: int,
    only: tuple[str, ...],
    local: bool,
    partition: str | None,
    site: str | None,
    account: str | None,
    qos: str | None,
    preemptor: str | None,
    as_admin: bool,
    stop_node: str | None,
    start_node: str | None,
    experiments: Path | None,
) -> int:
    """Beat a twin of an experiment with real blows, and compare it with a calm one.

    Preemption, requeue, time limit, signals, cancellation, SIGKILL in a step, a save, an evaluation: drawn from a seed.
    The experiment of the config itself is not touched. Exit code 0 only if every run ends with the bits of the calm one.
    """
    on_slurm = [
        flag
        for flag, value in {
            "--partition": partition,
            "--site": site,
            "--account": account,
            "--qos": qos,
            "--preemptor": preemptor,
            "--as-admin": as_admin or None,
            "--stop-node": stop_node,
            "--start-node": start_node,
        }.items()
        if value is not None
    ]
    if local and on_slurm:
        raise click.UsageError(f"--local runs on this machine, where {' and '.join(on_slurm)} would mean nothing.")
    if not local and partition is None and site is None:
        raise click.UsageError("Say where: --local, --partition NAME or --site NAME.")
    if (stop_node is None) != (start_node is None):
        raise click.UsageError("--stop-node and --start-node come together: what was stopped has to go on.")
    from launcher.chaos.trial import Wish, announce, chaos
    from launcher.plan import Flags

    flags = Flags(partition=partition, site=site, account=account, qos=qos, local=local, experiments=experiments)
    commands = (stop_node, start_node) if stop_node and start_node else None
    return chaos(Wish(config, flags, seed, blows, preemptor, as_admin, only, commands), announce)
