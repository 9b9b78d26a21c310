"""`launch logs`: what the attempts of a run wrote, one after the other; -f goes on over preemptions until the run has ended."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jobs.rundir import RunDir, Tree
from launcher.attempts import AttemptRecord, attempts
from launcher.errors import ExitCode, fail
from launcher.runstate import Record, RunState, examine
from launcher.status import describe, verdict

PAUSE: Final = 0.3
ASK_EVERY: Final = 3.0
"""Seconds between questions about the state: files are looked at more often than Slurm is."""
BLOCK: Final = 1 << 16


@dataclass(slots=True)
class Reader:
    """One run's attempts, read on from where the last look ended."""

    run: RunDir
    prefix: str
    only: int | None
    """Just this attempt."""
    attempt: int = 0
    offset: int = 0
    rest: bytes = field(default=b"")

    def show(self) -> bool:
        """Print what is new. Whether there was anything."""
        before = (self.attempt, self.offset)
        for number in self._numbers():
            if number != self.attempt:
                self._flush()
                self.attempt, self.offset = number, 0
                self._line(header(self.run, number))
            self._read(self.run.attempt_log(number))
        return (self.attempt, self.offset) != before

    def close(self) -> None:
        """A last line without its end."""
        self._flush()

    def _numbers(self) -> list[int]:
        there = self.run.attempts()
        return (
            [n for n in there if n == self.only] if self.only is not None else [n for n in there if n >= self.attempt]
        )

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                file.seek(self.offset)
                while block := file.read(BLOCK):
                    self.offset += len(block)
                    *lines, self.rest = (self.rest + block).split(b"\n")
                    for line in lines:
                        self._line(line.decode(errors="replace"))
        except FileNotFoundError:
            return

    def _flush(self) -> None:
        if self.rest:
            self._line(self.rest.decode(errors="replace"))
            self.rest = b""

    def _line(self, text: str) -> None:
        sys.stdout.write(f"{self.prefix}{text}\n")


def show_logs(tree: Tree, seed: int | None, attempt: int | None, follow: bool) -> int:  # noqa: FBT001 - as the command line has it
    """Print all attempts in order (or the one asked for), each with a header line; with several seeds each line says whose it is.

    With `follow`, the exit code is the run's: see `launcher.status.verdict`. Raises LaunchError (NOT_FOUND) for a seed or an
    attempt that is not there."""
    seeds = tree.seeds()
    if seed is not None and seed not in seeds:
        raise fail(
            ExitCode.NOT_FOUND,
            f"{tree.name} has no seed {seed}.",
            hint=f"There: {', '.join(map(str, seeds)) or 'none'}.",
        )
    chosen = [seed] if seed is not None else seeds
    readers = [Reader(tree.run(each), f"seed {each} | " if len(chosen) > 1 else "", attempt) for each in chosen]
    if attempt is not None and not any(attempt in reader.run.attempts() for reader in readers):
        there = sorted({number for reader in readers for number in reader.run.attempts()})
        hint = f"There: {', '.join(map(str, there))}." if there else "None has started yet."
        raise fail(ExitCode.NOT_FOUND, f"There is no attempt {attempt}.", hint=hint)
    if follow:
        return _follow(tree, chosen, readers)
    states = examine(tree, chosen)
    for reader, state in zip(readers, states, strict=True):
        reader.show()
        reader.close()
        if reader.attempt == 0:
            _nothing_yet(reader, state)
    return ExitCode.OK


def _follow(tree: Tree, seeds: list[int], readers: list[Reader]) -> int:
    told: dict[int, str] = {}
    asked = 0.0
    states: list[RunState] = []
    try:
        while True:
            new = [reader.show() for reader in readers]
            sys.stdout.flush()
            if time.monotonic() - asked >= ASK_EVERY or all(reader.run.done.exists() for reader in readers):
                states, asked = examine(tree, seeds), time.monotonic()
                _changes(states, readers, told)
                if not any(state.active for state in states) and not any(reader.show() for reader in readers):
                    break
            if not any(new):
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    for reader in readers:
        reader.close()
    return verdict(states)


def _changes(states: Iterable[RunState], readers: Iterable[Reader], told: dict[int, str]) -> None:
    for state, reader in zip(states, readers, strict=True):
        word = describe(state)
        if told.get(state.seed) != word:
            told[state.seed] = word
            sys.stdout.write(f"{reader.prefix}-- {word}\n")


def _nothing_yet(reader: Reader, state: RunState) -> None:
    """Why there is no attempt, and where the batch script's own log is if it wrote one."""
    sys.stdout.write(f"{reader.prefix}no attempt has started: {describe(state)}\n")
    record = Record.read(reader.run)
    if record is not None and record.job is not None:
        log = Tree(reader.run.root).submissions / record.id / f"{record.job}.log"
        if log.exists():
            sys.stdout.write(f"{reader.prefix}the batch script's log: {log}\n")


def header(run: RunDir, number: int) -> str:
    """One line before an attempt's own."""
    record = next((each for each in attempts(run) if each.number == number), AttemptRecord(number))
    place = ", ".join(part for part in (record.where, record.job and f"job {record.job}", record.started) if part)
    ending = f": {record.cause}" if record.cause else ""
    return f"== seed {run.seed}, attempt {number}" + (f" ({place})" if place else "") + f"{ending} =="
