"""Whether Slurm can take a request, asked before anything is written, and what its refusals mean."""

import re
from collections.abc import Collection, Iterator, Mapping
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
SHELL: Final = frozenset(
    {
        *(
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "PWD",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TERM",
            "TMPDIR",
            "LD_LIBRARY_PATH",
        ),
        *("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "KRB5CCNAME"),
        *("MODULEPATH", "MODULESHOME", "LOADEDMODULES", "_LMFILES_", "BASH_ENV", "ENV", "CONDA_PREFIX", "CONDA_EXE"),
        *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
        *("APPTAINER_TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_CONFIGDIR"),
    }
)
SHELL_PREFIXES: Final = ("LC_", "LMOD_", "__LMOD", "_ModuleTable", "MODULES_", "BASH_FUNC_", "SLURM_CONF")
"""What a batch script needs of the shell that it was submitted from: to find programs, folders, modules and engines."""
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


def unset(environment: Mapping[str, str], parameters: Mapping[str, Any], passed_on: Collection[str] = ()) -> list[str]:
    """Options of `env` that keep this shell's variables from sbatch, beside those that a job needs and the site passes on.

    sbatch hands its environment to slurmctld, which writes it down, and some sites keep it with the accounts: no key goes
    there that the run is not to get. And the shell's own settings may not override the plan: sbatch heeds SBATCH_* above the
    script, and the variables of a job that the launcher itself runs in would reach the new job's srun.

    `passed_on`: names of the site's `environment`. What the site's own lines in `parameters` name is needed, too."""
    given = {**parameters, **parameters.get("additional_parameters", {})}
    lines = "\n".join([*parameters.get("setup", ()), *parameters.get("teardown", ())])
    named = {*SHELL, *passed_on, *re.findall(r"\$\{?(\w+)", lines)}
    options = []
    for name in sorted(environment):
        if name in KEPT:
            keep = given.get(KEPT[name]) is None
        elif name.startswith(("SBATCH_", "SLURM_")):
            keep = name.startswith("SLURM_CONF")
        else:
            keep = name in named or name.startswith(SHELL_PREFIXES)
        options += [] if keep else ["-u", name]
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
