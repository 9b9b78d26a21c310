"""The one door to other programs: run, wait, keep the evidence. Standard library only."""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from launcher.errors import ExitCode, LaunchError, Problem

LAST_LINES = 20
Started = subprocess.Popen[bytes]
"""A program that runs."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. `code` is negative for a signal, as in subprocess."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def evidence(self) -> str:
        """Command, exit code and the last lines of both streams, for an error message."""
        lines = [f"$ {shlex.join(self.argv)}", f"exit code {self.code}"]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            kept = text.strip().splitlines()[-LAST_LINES:]
            lines += [f"{name}: {line}" for line in kept]
        return "\n".join(lines)


def _environment() -> dict[str, str]:
    """This process's, without what changes the answers of squeue, sacct and sinfo: SQUEUE_PARTITION in a user's shell would make
    running jobs unknown."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_", "SINFO_"))}


class ProgramMissingError(LaunchError):
    """The program is not on PATH."""


def run(  # noqa: PLR0913 - what any program is started with
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = 60,
    kind: ExitCode = ExitCode.CLUSTER,
    exactly: bool = False,
) -> Result:
    """Run a program to its end and return how it ended, whatever its exit code.

    `env` is added to this process's environment, or, `exactly`, is all that it gets. Raises ProgramMissingError (exit code
    `kind`) when it is not on PATH, and LaunchError of `kind` when it takes longer than `timeout` seconds."""
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env={**({} if exactly else _environment()), **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.exists():
            raise
        raise ProgramMissingError(kind, [Problem(f"`{argv[0]}` is not on PATH.")]) from error
    except PermissionError as error:
        raise ProgramMissingError(kind, [Problem(f"`{argv[0]}` may not be executed: {error}.")]) from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(kind, [Problem(f"`{shlex.join(argv)}` gave no answer within {timeout:g} s.")]) from error
    return Result(tuple(argv), done.returncode, done.stdout, done.stderr)


def start(argv: Sequence[str], log: IO[bytes], *, cwd: Path | None = None) -> Started:
    """Start a program and do not wait for it; its output goes to the end of `log`. In a session of its own: Ctrl-C is for us."""
    return subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def follow(
    argv: Sequence[str],
    each: Callable[[str], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    kind: ExitCode = ExitCode.CLUSTER,
    exactly: bool = False,
) -> Result:
    """Run a program that takes long: `each` gets every line of its two streams as it comes. `stdout` has all of them.

    `env` is added to this process's environment, or, `exactly`, is all that it gets."""
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env={**({} if exactly else _environment()), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ProgramMissingError(kind, [Problem(f"`{argv[0]}` cannot be executed: {error.strerror}.")]) from error
    lines = []
    try:
        for line in process.stdout or ():
            lines.append(line)
            each(line.rstrip())
    except BaseException:
        process.kill()
        raise
    finally:
        code = process.wait()
    return Result(tuple(argv), code, "".join(lines), "")


def check(result: Result, kind: ExitCode, what: str, hint: str = "") -> Result:
    """Return `result` if it is a success, else raise LaunchError of `kind` with its evidence."""
    if result.ok:
        return result
    raise LaunchError(kind, [Problem(what, hint=hint)], result.evidence())
