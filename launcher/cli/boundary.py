"""Where every error of a command ends: what is printed, and the exit code. Nothing behind it prints an error."""

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from launcher import __version__
from launcher.errors import ExitCode, LaunchError, Problem

BROKEN_PIPE: Final = 141
"""What a shell reports for a program whose reader went away: 128 + SIGPIPE."""

FILE_SYSTEM: Final = {
    errno.ENOSPC: "Free some space, or use --experiments on another file system.",
    errno.EDQUOT: "Your quota is used up. Free some space, or use --experiments on another file system.",
    errno.EACCES: "",
    errno.EPERM: "",
    errno.EROFS: "",
    errno.EIO: "",
    errno.ESTALE: "The network file system lost it; the same command may work again.",
    errno.ENAMETOOLONG: "",
    errno.ELOOP: "",
    errno.EFBIG: "",
    errno.EMFILE: "",
    errno.ENFILE: "",
}
"""Errors of the machine rather than of this program, with what may help."""


def guarded(action: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Do it and return the exit code: the action's own, or that of the error it ended with, once that is told."""
    _never_fail_on_encoding()
    try:
        try:
            code = action()
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - this is the boundary
            code = _told(error, arguments)
        sys.stderr.flush()
    except BrokenPipeError:
        return _broken_pipe()
    return int(code or 0)


def _told(error: BaseException, arguments: Sequence[str]) -> int:
    """Print what there is to say about an error and return its exit code."""
    code: int
    match error:
        case BrokenPipeError():
            raise error
        case LaunchError():
            _print_problems(error.problems, error.evidence)
            code = error.code
        case click.UsageError():
            code = _usage(error)
        case click.exceptions.Exit():  # --help and --version
            code = error.exit_code
        case click.exceptions.Abort() | KeyboardInterrupt():
            sys.stderr.write("\nlaunch: interrupted.\n")
            code = ExitCode.INTERRUPTED
        case OSError() if error.errno in FILE_SYSTEM:
            code = _file_system(error)
        case SystemExit(code=int(own)):
            code = own
        case _:
            code = _bug(error, arguments)
    return code


def _file_system(error: OSError) -> int:
    where = _path(error)
    if not where:
        _drop_unwritten()
    problem = Problem(f"{error.strerror}.", where or "standard output", FILE_SYSTEM[error.errno or 0])
    _print_problems([problem], "")
    return ExitCode.FILES


def _path(error: OSError) -> str:
    names = [
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)
    ]
    return " -> ".join(names)


def _usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and error.ctx:
        click.echo(error.ctx.get_help(), err=True)
        return ExitCode.USAGE
    verb = error.ctx.command_path if error.ctx else "launch"
    _print_problems([Problem(error.format_message(), hint=f"See `{verb} --help`.")], "")
    return ExitCode.USAGE


def _print_problems(problems: Sequence[Problem], evidence: str) -> None:
    lines = [_coloured(problem) if problem.where else f"launch: {problem}" for problem in problems]
    lines += [f"    {line}" for line in evidence.splitlines()]
    sys.stderr.write(_printable("\n".join(lines)) + "\n")


def _coloured(problem: Problem) -> str:
    """On a terminal the place stands out; anywhere else the text is plain."""
    text = str(problem)
    if not sys.stderr.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[1m{_printable(problem.where)}\x1b[0m{_printable(text.removeprefix(problem.where))}"


def _printable(text: str) -> str:
    """Without control characters that a name or a foreign tool could send to the terminal, but for our own colours."""
    return re.sub(r"(?!\x1b\[[01]m)[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def _bug(error: BaseException, arguments: Sequence[str]) -> int:
    """One line for the user, the rest in a file that can be sent: no environment, which may hold keys."""
    import platform
    import tempfile
    import traceback

    text = (
        f"samebits {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"arguments: {list(arguments)!r}\n\n{''.join(traceback.format_exception(error))}"
    )
    last = traceback.format_exception_only(error)[-1].strip()
    try:
        handle, path = tempfile.mkstemp(prefix="samebits-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        problem = Problem(f"A bug of samebits: {last.splitlines()[0]}.", hint=f"Please send {path} with a report.")
        _print_problems([problem], "")
    except OSError:
        _print_problems([Problem("A bug of samebits; no log could be written:")], text)
    return ExitCode.INTERNAL


def _never_fail_on_encoding() -> None:
    """A name that the terminal's encoding lacks is shown with its code, rather than ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_unwritten() -> None:
    """What standard output could not take must not be tried again at exit, with a traceback of the interpreter's."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _broken_pipe() -> int:
    _drop_unwritten()
    return BROKEN_PIPE
