"""`launch status`: what has become of the runs, for a person or as JSON; and `wait`, until they have all ended."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from jobs.contract import Cause
from jobs.rundir import Tree
from launcher.errors import ExitCode, fail
from launcher.history import NOT_REPRODUCIBLE, Goodput, goodput, marks, saved_step
from launcher.progress import Progress, last_line, progress, provenance
from launcher.recover import bring_back, recover
from launcher.runstate import RunState, State, examine

COLUMNS: Final = ("seed", "state", "step", "epoch", "val loss", "accuracy", "attempts", "where", "detail")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the table."""

    state: RunState
    progress: Progress
    log: Path | None
    """Of the last attempt."""
    goodput: Goodput


@dataclass(frozen=True, slots=True)
class Experiment:
    """One table."""

    tree: Tree
    commit: str | None
    marks: tuple[str, ...]
    """Why nobody would get the same bits again; mostly none."""
    runs: tuple[Run, ...]


def show_status(experiments: Path, name: str | None, as_json: bool) -> int:  # noqa: FBT001 - as the command line has it
    """Print it. `experiments`: the folder of all trees. Raises LaunchError (NOT_FOUND) for a name that is not there."""
    if name is not None and not Tree(experiments / name).config.is_file():
        raise fail(ExitCode.NOT_FOUND, f"No experiment `{name}`.", where=str(experiments))
    names = [name] if name is not None else sorted(path.parent.name for path in experiments.glob("*/config.yaml"))
    trees = [Tree(experiments / each) for each in names]
    notes = [line for tree in trees for line in [*recover(tree), *bring_back(tree)]]
    found = [look(tree) for tree in trees]
    if as_json:
        _out(
            json.dumps(
                {"experiments": [_as_json(each) for each in found], "notes": notes}, indent=2, ensure_ascii=False
            )
        )
        return ExitCode.OK
    for note in notes:
        _out(f"note: {note}")
    if not found:
        _out(f"No experiment in {experiments}.")
    for number, each in enumerate(found):
        if number:
            _out("")
        _show(each)
    return ExitCode.OK


def look(tree: Tree) -> Experiment:
    """One experiment as it is now."""
    origin = provenance(tree)
    runs = []
    for state in examine(tree):
        run = tree.run(state.seed)
        log = run.attempt_log(state.last.number) if state.last and state.last.number else None
        runs.append(Run(state, how_far := progress(run), log, _goodput(tree, state, how_far.step)))
    return Experiment(
        tree,
        origin.get("commit"),
        tuple(marks(tree, {run.state.seed: run.state.attempts for run in runs})),
        tuple(runs),
    )


def _goodput(tree: Tree, state: RunState, step: int | None) -> Goodput:
    under_way = state.active and state.last is not None and state.last.exit_code is None
    lasting = step or 0 if state.state is State.DONE or under_way else saved_step(tree.run(state.seed), state.attempts)
    return goodput(state.attempts, step, lasting)


def wait(tree: Tree, seeds: Sequence[int], say: Callable[[str], None]) -> int:
    """Stay until none of these seeds goes on by itself; `say` gets a line for each change.

    OK: all are done. RUN: one failed, was cancelled or is lost. SAVED: the rest can go on, by the same command. INTERRUPTED:
    Ctrl-C; the runs go on."""
    known: dict[int, tuple[State, str]] = {}
    pause = FIRST_PAUSE
    try:
        while True:
            states = examine(tree, seeds)
            for state in states:
                if known.get(state.seed) != (state.state, state.detail):
                    known[state.seed] = (state.state, state.detail)
                    say(f"{tree.name} seed {state.seed}: {describe(state)}")
                    pause = FIRST_PAUSE
            if not any(state.active for state in states):
                return verdict(states)
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
    except KeyboardInterrupt:
        say(f"The runs go on. `launch status {tree.name}` shows them, `launch cancel {tree.name}` ends them.")
        return ExitCode.INTERRUPTED


def verdict(states: Iterable[RunState]) -> int:
    """One exit code for runs that have ended."""
    found = {state.state for state in states}
    if found <= {State.DONE}:
        return ExitCode.OK
    return ExitCode.SAVED if found <= {State.DONE, State.SAVED} else ExitCode.RUN


def describe(state: RunState) -> str:
    """State, place and reason in a line."""
    where = f" on {state.node}" if state.node and state.state is State.RUNNING else ""
    return f"{state.state}{where}" + (f" ({state.detail})" if state.detail else "")


def _as_json(each: Experiment) -> dict[str, Any]:
    return {
        "name": each.tree.name,
        "commit": each.commit,
        "reproducible": not each.marks,
        "marks": list(each.marks),
        "seeds": [run.state.seed for run in each.runs],
        "runs": [
            {
                **{key: value for key, value in asdict(run.state).items() if key != "attempts"},
                **asdict(run.progress),
                "log": str(run.log) if run.log else None,
                "goodput": {**asdict(run.goodput), "ratio": run.goodput.ratio},
                "attempts": [asdict(attempt) for attempt in run.state.attempts],
            }
            for run in each.runs
        ],
        "summary": _summary(each),
    }


def _show(each: Experiment) -> None:
    head = each.tree.name + (f"  commit {each.commit[:12]}" if each.commit else "")
    rows = [_row(run) for run in each.runs]
    if sys.stdout.isatty():
        _show_rich(head, each, rows)
    else:
        _out(head + (f"  {NOT_REPRODUCIBLE}: {'; '.join(each.marks)}" if each.marks else ""))
        widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
        for row in [COLUMNS, *rows]:
            _out("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    _out("  " + _summary(each))
    for run in each.runs:
        if run.state.state in {State.FAILED, State.LOST} and run.log is not None:
            _out(f"  seed {run.state.seed}: {run.log}: {last_line(run.log) or 'empty'}")


def _show_rich(head: str, each: Experiment, rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    title = Text(head, style="bold")
    if each.marks:
        title.append(f"  {NOT_REPRODUCIBLE}: {'; '.join(each.marks)}", style="bold red")
    console.print(title)
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    colours = {
        State.DONE: "green",
        State.RUNNING: "cyan",
        State.FAILED: "red",
        State.LOST: "red",
        State.CANCELLED: "yellow",
    }
    for run, row in zip(each.runs, rows, strict=True):
        cells = [Text(cell) for cell in row]
        cells[1].stylize(colours.get(run.state.state, ""))
        table.add_row(*cells)
    console.print(table)


def _row(run: Run) -> tuple[str, ...]:
    state, done = run.state, run.progress
    causes = [attempt.cause or ("running" if state.active else "?") for attempt in state.attempts]
    told = f"{len(causes)}: {', '.join(causes)}" if causes else "0"
    if len(causes) > 3:  # noqa: PLR2004 - more would fill the line
        told = f"{len(causes)}: " + ", ".join(f"{n} {cause}" for cause, n in Counter(causes).items())
    return (
        str(state.seed),
        str(state.state),
        _of(done.step, done.steps),
        _of(done.epoch, done.epochs),
        "" if done.val_loss is None else f"{done.val_loss:.4f}",
        "" if done.accuracy is None else f"{done.accuracy:.1%}",
        told,
        " ".join(part for part in (state.node, state.job) if part),
        state.detail,
    )


def _of(number: int | None, total: int | None) -> str:
    if number is None:
        return ""
    return f"{number}/{total}" if total is not None else str(number)


def _summary(each: Experiment) -> str:
    """A number never stands without its seeds and their count (R23)."""
    count = Counter(str(run.state.state) for run in each.runs)
    parts = [
        f"{len(each.runs)} seeds: "
        + (", ".join(f"{n} {state}" for state, n in count.items()) or "none has a specification")
    ]
    done = [run for run in each.runs if run.state.state is State.DONE]
    for key, form in (("val_loss", "{:.4f}"), ("accuracy", "{:.1%}")):
        values = [
            (run.state.seed, getattr(run.progress, key)) for run in done if getattr(run.progress, key) is not None
        ]
        if values:
            mean = form.format(sum(value for _, value in values) / len(values))
            seeds = ", ".join(str(seed) for seed, _ in values)
            name = key.replace("_", " ")
            parts.append(f"{name} {mean}, mean of {len(values)} done of {len(each.runs)} seeds ({seeds})")
    requeued = sum(1 for run in each.runs for attempt in run.state.attempts if attempt.cause == Cause.PREEMPTED)
    if requeued:
        parts.append(f"preempted {requeued} times")
    if any(len(run.state.attempts) > 1 for run in each.runs):
        useful, executed = (sum(getattr(run.goodput, name) for run in each.runs) for name in ("useful", "executed"))
        if executed:
            parts.append(f"goodput {useful / executed:.1%} ({useful} of {executed} steps)")
    return "; ".join(parts)


def _out(line: str) -> None:
    sys.stdout.write(line + "\n")
