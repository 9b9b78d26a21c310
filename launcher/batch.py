"""The shell around submitit's srun: what the batch script does before and after the step. Pure; stdlib only."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

STOP: Final = "TERM USR2 CONT"
"""What Slurm sends to a batch script that is to end: bash would die of it before the arbiter is asked."""


def words(*parts: str | Path) -> str:
    """A command of a shell script. The one place where anything is quoted for a shell."""
    return shlex.join(map(str, parts))


def python(interpreter: str) -> tuple[str, ...]:
    """How the launcher starts on the node: the interpreter that planned the run, and only what is installed in it.

    -I: neither the folder that the job starts in, nor PYTHONPATH, nor the user's site-packages can bring another
    `launcher`."""
    return (interpreter, "-I")


def setup(site: Sequence[str]) -> list[str]:
    """Shell lines before the step. `site`: the site's own lines, already shell."""
    return [
        f"trap ':' {STOP}",
        'umask "${SLURM_UMASK:-0022}"',
        *site,
    ]


def teardown(site: Sequence[str], interpreter: str, placement: Path) -> list[str]:
    """Shell lines after the step: the arbiter decides, and its exit code is the job's. `site`: the site's own lines.

    From here on the signals are ignored, not just trapped: children inherit that, so neither the arbiter nor the
    `scontrol` that it calls dies of the signal that it is to explain."""
    arbiter = words(*python(interpreter), "-m", "launcher.arbiter", "--placement", placement)
    return [
        "rc=$?",
        f"trap '' {STOP}",
        *site,
        f'{arbiter} --code "$rc"',
        "exit $?",
    ]
