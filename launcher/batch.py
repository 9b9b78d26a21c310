"""The shell around submitit's srun, and how the launcher starts on a node. Pure; stdlib only."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jobs.contract import Exit

STOP: Final = "TERM USR2 CONT"
"""What Slurm sends to a batch script that is to end: bash would die of it before the arbiter is asked."""
ARRAY: Final = "samebits"
"""The bash array of a batch script that holds the start of the launcher."""
UNABLE: Final = "samebits: the launcher cannot start here"
TRIES: Final = 3
"""So many nodes on which the arbiter cannot start are left for another one."""
PROGRAM: Final = f"""\
import hashlib, runpy, sys
path, digest, module = sys.argv[1:4]
try:
    with open(path, "rb") as file:
        found = "sha256:" + hashlib.sha256(file.read()).hexdigest()
except OSError as error:
    print(f"refused: {{path}}: the launcher of this run cannot be read here: {{error.strerror}}.", file=sys.stderr)
    sys.exit({Exit.UNFIT:d})
if found != digest:
    print(f"refused: {{path}}: the launcher of this run is {{digest}}; this is: {{found}}. Launch again.", file=sys.stderr)
    sys.exit({Exit.REFUSED:d})
sys.path.insert(0, path)
sys.argv[:4] = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""Imports the launcher from its bundle, once that is known to be whole. It lies in the batch script, which Slurm keeps for itself:
what checks the store does not come from the store."""


def words(*parts: str | Path) -> str:
    """A command of a shell script. The one place where anything is quoted for a shell."""
    return shlex.join(map(str, parts))


def python(interpreter: str) -> tuple[str, ...]:
    """The interpreter that planned the run, and only what is installed in it.

    -I: neither the folder that the job starts in, nor PYTHONPATH, nor the user's site-packages can bring another
    `launcher`."""
    return (interpreter, "-I")


def launcher(interpreter: str, bundle: Path, digest: str) -> tuple[str, ...]:
    """How the pinned launcher starts on a node; a module and its arguments follow. Exit code 78 when the bundle is not the one of
    that digest (``sha256:``), and 79 when this node does not see it.

    The interpreter's packages are there as well (submitit), but after the bundle. No variable is set, so a run inherits none."""
    return (*python(interpreter), "-u", "-c", PROGRAM, str(bundle), digest)


def setup(site: Sequence[str], start: Sequence[str]) -> list[str]:
    """Shell lines before the step. `site`: the site's own lines, already shell. `start`: that of the launcher."""
    return [
        f"trap ':' {STOP}",
        'umask "${SLURM_UMASK:-0022}"',
        *site,
        f"{ARRAY}=({words(*start)})",
    ]


def step(*arguments: str | Path) -> str:
    """A module of the launcher with its arguments, after `setup`."""
    return f'"${{{ARRAY}[@]}}" {words(*arguments)}'


def teardown(site: Sequence[str], placement: Path) -> list[str]:
    """Shell lines after the step: the arbiter decides, and its exit code is the job's. `site`: the site's own lines.

    From here on the signals are ignored, not just trapped: children inherit that, so neither the arbiter nor the
    `scontrol` that it calls dies of the signal that it is to explain."""
    return [
        "rc=$?",
        f"trap '' {STOP}",
        *site,
        f'{step("launcher.arbiter", "--placement", placement)} --code "$rc"',
        "rc=$?",
        f'case "$rc" in {Exit.DONE:d} | {Exit.BROKEN:d} | {Exit.SAVED:d} | {Exit.REFUSED:d}) exit "$rc" ;; esac',
        *_elsewhere(placement.parent),
        'exit "$rc"',
    ]


def _elsewhere(folder: Path) -> list[str]:
    """Shell lines for a node on which the arbiter cannot start: no interpreter, no store. The job goes to another node, a few
    times; its log counts them. Slurm requeues only what still runs, so what was cancelled stays so. A launcher that was damaged in
    the store is the same on all nodes, and not tried again."""
    return [
        'job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
        f'echo "{UNABLE} (exit code $rc on $SLURMD_NODENAME)"',
        f'tries=$(grep -c "^{UNABLE}" {words(folder)}/"$job.log")',
        f'if [ "${{tries:-0}}" -ge 1 ] && [ "$tries" -le {TRIES} ]; then',
        '  old=$(scontrol show job -o "$job" | grep -o " ExcNodeList=[^ ]*" | cut -d= -f2 | grep -v "(null)")',
        '  scontrol requeue incomplete "$job" &&',
        '    scontrol update JobId="$job" ExcNodeList="${old:+$old,}$SLURMD_NODENAME"',
        "fi",
    ]
