"""`python -m jobs RUN`: run, resume or find done the run that the specification RUN describes. Standard library only, up to `run`."""

import json
import os
import sys
import traceback
from pathlib import Path

from jobs import preemption
from jobs.contract import Exit
from jobs.errors import Fenced, Refused

REEXECUTED = "SAMEBITS_REEXECUTED"
"""Set over the one exec that gives the process its numerics environment, so that it happens once."""


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
    if REEXECUTED in os.environ:
        raise Refused("the environment that pins the bits does not stay set over an exec")
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(  # noqa: S606 - the same program
        sys.executable, arguments, {**os.environ, **wanted, REEXECUTED: "1"}
    )


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m jobs experiments/NAME/artifacts/seed-N/run.json", file=sys.stderr)
        return 2
    path = Path(arguments[0]).absolute()
    # Held back until the handlers stand in the process that stays: a flag would not survive the exec.
    preemption.block()
    try:
        set_numerics(path)
        stop = preemption.StopFlag().listen()
        from jobs.run import run

        return run(path, stop)
    except Refused as reason:
        print(f"refused: {reason}", file=sys.stderr, flush=True)
        return Exit.REFUSED
    except Fenced as reason:
        print(f"fenced: {reason}", file=sys.stderr, flush=True)
        return Exit.FENCED
    except Exception:  # noqa: BLE001 - the log of a run is where its traceback belongs
        traceback.print_exc()
        return Exit.BROKEN


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)
