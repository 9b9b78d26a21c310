"""Whether Slurm can take a request, asked before anything is written, and what its refusals mean."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from launcher.batch import python
from launcher.errors import ExitCode, Problem, fail
from launcher.partitions import Partition, partitions
from launcher.plan import SlurmRequest, chain
from launcher.process import ProgramMissingError, run
from launcher.walltime import spelled

KEPT: Final = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_RESERVATION": "",
}
"""Defaults of the user's shell that stay in force where the plan does not speak of them: variable, parameter."""
UNPRINTABLE: Final = "%\\\n\r"
"""Slurm reads these in the name of a log in a way of its own."""


def check(slurm: SlurmRequest, tree: Path) -> tuple[SlurmRequest, list[str]]:
    """The request as its partition takes it, and notes for a person. Raises LaunchError (CLUSTER): no Slurm, no such partition."""
    if odd := sorted({char for char in str(tree) if char in UNPRINTABLE}):
        what = f"Slurm cannot write a log into a folder with {' and '.join(map(repr, odd))} in its path."
        raise fail(ExitCode.CLUSTER, what, where=str(tree), hint="Name another folder with --experiments.")
    try:
        known = partitions()
    except ProgramMissingError as error:
        hint = "Launch from a login node of the cluster, or without --partition to run on this machine."
        raise fail(ExitCode.CLUSTER, f"There is no Slurm here: {error}", hint=hint) from error
    notes: list[str] = []
    for name in slurm.partition.split(","):
        if name not in known:
            raise _unknown(name, known)
        notes += _notes(slurm, known[name])
    longest = min((found for name in slurm.partition.split(",") if (found := known[name].minutes)), default=None)
    if longest is None or slurm.time_minutes <= longest:
        return slurm, notes
    if longest * 60 <= slurm.signal_seconds:
        ahead = f"the signal to save comes {slurm.signal_seconds} s ahead"
        what = f"Partition {slurm.partition} gives at most {spelled(longest)}, and {ahead}."
        raise fail(ExitCode.CLUSTER, what, hint="Lower the site's signal_seconds.")
    fitting = slurm.within(longest)
    return fitting, [*notes, chain(fitting)]


def _unknown(name: str, known: Mapping[str, Partition]) -> Exception:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    there = f"There: {', '.join(sorted(known))}." if known else "sinfo shows none."
    return fail(ExitCode.CLUSTER, f"No partition `{name}`.", hint=f"Did you mean {near[0]}? {there}" if near else there)


def _notes(slurm: SlurmRequest, partition: Partition) -> Iterator[str]:
    """Slurm may take a job that can never start. It is said, not refused: nodes come and go."""
    asked = {"GPUs a node": slurm.gpus_per_node, "CPUs a node": slurm.cpus_per_task, "nodes": slurm.nodes}
    there = {"GPUs a node": partition.gpus, "CPUs a node": partition.cpus, "nodes": partition.nodes}
    for what, count in asked.items():
        if count > there[what]:
            yield f"Partition {partition.name} has at most {there[what]} {what}; {count} are asked for: it may never start."
    if not partition.up:
        yield f"Partition {partition.name} is not up: jobs wait until it is."


def check_python(interpreter: str) -> None:
    """The node brings the launcher itself, but takes submitit from this interpreter: it must be installed with it, rather than
    lie on a path of this shell's. Raises LaunchError (CLUSTER)."""
    program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('submitit') is None)"
    answer = run([*python(interpreter), "-c", program], kind=ExitCode.CLUSTER)
    if not answer.ok:
        what = f"The nodes would not find submitit: it is not installed with {interpreter}."
        hint = f"Install it there: `{interpreter} -m pip install -r requirements.lock`."
        raise fail(ExitCode.CLUSTER, what, hint=hint, evidence=answer.stderr.strip())


def unset(environment: Mapping[str, str], parameters: Mapping[str, Any]) -> list[str]:
    """Options of `env` that keep the shell's own settings from overriding the plan: sbatch heeds SBATCH_* above the script.

    The variables of a job that the launcher itself may run in go as well: they would reach the new job's srun."""
    given = {**parameters, **parameters.get("additional_parameters", {})}
    options = []
    for name in sorted(environment):
        if name in KEPT and given.get(KEPT[name]) is None:
            continue
        if name.startswith("SBATCH_") or (name.startswith("SLURM_") and not name.startswith("SLURM_CONF")):
            options += ["-u", name]
    return options


HINTS: Final = (
    (
        "invalid account",
        "`sacctmgr show assoc user=$USER format=account,partition,qos` lists what you may use; then --account NAME.",
    ),
    (
        "invalid qos",
        "`sacctmgr show assoc user=$USER format=account,partition,qos` lists what you may use; then --qos NAME.",
    ),
    ("invalid partition", "`sinfo -s` lists the partitions."),
    (
        "submitjob",
        "You have as many jobs as your limits allow: `squeue --me` lists them. Launch again when some have ended.",
    ),
    (
        "violates accounting",
        "Your limits do not allow this: `sacctmgr show assoc user=$USER` and `sacctmgr show qos` list them.",
    ),
    ("node configuration", '`sinfo -o "%P %D %c %m %G"` shows what the nodes have; change `cluster` in the config.'),
    ("contact slurm controller", "`scontrol ping` says whether it is up; launch again when it is."),
    (
        "array size",
        "The cluster limits arrays: `scontrol show config | grep MaxArraySize`. Split the seeds over two configs.",
    ),
)


def refusal(words: str, slurm: SlurmRequest) -> Problem:
    """What sbatch said, as one problem with the next command."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    told = lines[-1].removeprefix("sbatch: ").removeprefix("error: ").rstrip(".") if lines else "sbatch said nothing"
    told = told.removeprefix("Batch job submission failed: ")
    hint = next((hint for mark, hint in HINTS if mark in words.lower()), "`sinfo -s` shows what is there.")
    return Problem(f"Slurm refused the job in partition {slurm.partition}: {told}.", hint=hint)
