"""`python -m jobs RUN`: run, resume or find done what the specification RUN describes. Standard library only, up to `run`."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs import preemption
from jobs.contract import ATTEMPT_VARIABLE, Exit
from jobs.errors import Failed, Fenced, PeerLost, Refused, Unfit

if TYPE_CHECKING:
    from jobs.layout import Layout

REEXECUTED = "SAMEBITS_REEXECUTED"
"""The process that was executed anew to get its numerics environment. An exec keeps the process id, a child has another: so
that it happens once, and a run started from within a run is not mistaken for one."""

ENDS: Final = {
    Unfit: ("refused here", Exit.UNFIT),
    Refused: ("refused", Exit.REFUSED),
    Fenced: ("fenced", Exit.FENCED),
    PeerLost: ("lost", Exit.PEER),
    Failed: ("broken", Exit.BROKEN),
}
"""How a run ends for a reason that it can name: what is said before the reason, and the exit code. The first that fits."""


def set_numerics(path: Path) -> None:
    """Start this program anew with the variables that pin the bits, unless it has them: they act at process start alone.

    Raises Refused when the specification cannot be read."""
    from jobs.determinism import environment

    try:
        wanted = environment(json.loads(path.read_text(encoding="utf-8"))["recipe"]["numerics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path}: is not a run's specification: {type(error).__name__}: {error}") from error
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    if os.environ.get(REEXECUTED) == str(os.getpid()):
        lost = ", ".join(f"{name}={value}" for name, value in wanted.items() if os.environ.get(name) != value)
        raise Refused(f"the environment that pins the bits does not stay set over an exec: {lost}")
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(  # noqa: S606 - the same program
        sys.executable, arguments, {**os.environ, **wanted, REEXECUTED: str(os.getpid())}
    )


def several(path: Path) -> "Layout | None":
    """Where the ranks are that this process is to start; None when it is one itself, or the only one. Takes their attempt for them.

    Raises Refused."""
    from jobs import layout
    from jobs.rundir import RunDir

    parallel = json.loads(path.read_text(encoding="utf-8"))["recipe"]["training"].get("parallel", {})
    place = layout.read(parallel.get("ranks", 1), elastic=parallel.get("elastic", False))
    if place.ranks == 1 or place.rank is not None:
        return None
    if not os.environ.get(ATTEMPT_VARIABLE):
        if place.nodes > 1:
            raise Refused(f"{ATTEMPT_VARIABLE} is not set: on {place.nodes} nodes all need the same number")
        try:
            directory = RunDir.of_specification(path)
        except ValueError as error:
            raise Refused(str(error)) from error
        if not directory.done.exists():
            os.environ[ATTEMPT_VARIABLE] = str(directory.take_attempt())
    return place


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m jobs experiments/NAME/artifacts/seed-N/run.json", file=sys.stderr)
        return 2
    # Held back until the handlers stand in the process that stays: a flag would not survive the exec.
    preemption.block()
    try:
        return begin(Path(arguments[0]).absolute())
    except tuple(ENDS) as reason:
        word, code = next(end for kind, end in ENDS.items() if isinstance(reason, kind))
        print(f"{word}: {reason}", file=sys.stderr, flush=True)
        return code
    except Exception:  # noqa: BLE001 - the log of a run is where its traceback belongs
        traceback.print_exc()
        return Exit.BROKEN
    finally:
        # Python gives the signals back their deadly default before a process is gone: the exit code would be lost.
        preemption.block()


def begin(path: Path) -> int:
    """Pin the bits, then be the run, or start its ranks. Raises what `ENDS` has, and what breaks."""
    set_numerics(path)
    if (ranks := several(path)) is not None:
        from jobs.spawn import supervise

        return supervise(ranks)
    stop = preemption.StopFlag().listen()
    from jobs import origin
    from jobs.run import run

    return run(path, stop, origin.check)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)
