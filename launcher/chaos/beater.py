"""The loop: each run gets its blows in turn, and whatever a blow has ended is brought back as its user would bring it back."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from launcher.attempts import AttemptRecord
from launcher.chaos.scene import PAUSE, BreachError, Deal, Scene, UnableError
from launcher.chaos.schedule import Blow, Moment
from launcher.chaos.target import Target

QUICK_SECONDS: Final = 0.002
LAUNCHES_IN_VAIN: Final = 3
FILLS: Final = "disk-full"


class StuckError(Exception):
    """A run that does not come back, with the reason."""


@dataclass(slots=True)
class Dealt:
    """What became of a blow."""

    blow: Blow
    attempt: int | None = None
    """That it struck."""
    step: int | None = None
    """The last one of the ledger when it was ordered."""
    doing: Moment | None = None
    """What the run did at that moment."""
    landed: bool = False
    """Whether the attempt ended of it."""
    seconds: float | None = None
    """Until it did."""
    note: str = ""
    """Why not."""
    breach: bool = False


class Return(Protocol):
    """How runs come back where they run."""

    def look(self, target: Target) -> None:
        """Called again and again: launch what does not come back by itself. Raises StuckError."""

    def struck(self, target: Target) -> None:
        """A blow has landed: the next end of this run is not of its own making."""


@dataclass(slots=True)
class Beater:
    """Deals a schedule to the runs of one twin, each in a thread of its own."""

    scene: Scene
    deals: Mapping[str, Deal]
    back: Return
    say: Callable[[str], None]
    dealt: list[Dealt] = field(default_factory=list)
    stuck: dict[int, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _under_way: list[Dealt] = field(default_factory=list)
    _filled: bool = False

    def run(self, targets: Sequence[Target], schedule: Sequence[Blow]) -> None:
        """Until every run is done or stuck. KeyboardInterrupt ends it in between."""
        threads = []
        for target in targets:
            mine = [blow for blow in schedule if blow.seed == target.seed]
            threads.append(threading.Thread(target=self._beat, args=(target, mine), daemon=True))
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(PAUSE)
        finally:
            self.stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _beat(self, target: Target, blows: Sequence[Blow]) -> None:
        try:
            after = 0
            for blow in blows:
                after = self._one(target, blow, after)
            self._until(target, lambda: target.done)
        except StuckError as error:
            self._give_up(target, str(error))
        except Exception as error:  # noqa: BLE001 - a thread's failure must reach the verdict
            self._give_up(target, f"launch chaos itself failed: {type(error).__name__}: {error}")

    def _give_up(self, target: Target, why: str) -> None:
        with self._lock:
            self.stuck[target.seed] = why
        self.say(f"seed {target.seed}: given up: {why}")

    def _until(self, target: Target, condition: Callable[[], bool], pause: float = PAUSE) -> bool:
        """Whether it came true; False once the run is done, or nobody waits any more."""
        looked = 0.0
        while not condition():
            if target.done or self.stop.is_set():
                return False
            if time.monotonic() - looked > 10 * PAUSE:
                self.back.look(target)
                looked = time.monotonic()
            time.sleep(pause)
        return True

    def _one(self, target: Target, blow: Blow, after: int) -> int:
        """Deal it, and return the attempt that it struck."""
        told = Dealt(blow)
        with self._lock:
            self.dealt.append(told)
        while self._until(target, lambda: target.is_time(blow, after), _pause(blow)):
            time.sleep(blow.delay)
            with self._floor(told):
                attempt = target.alive()
                if attempt is None or attempt.number <= after:
                    continue  # something else was faster
                self._deal(target, told, attempt)
            over = told.landed and target.ended(attempt.number)  # a full disk need not end what it hits
            if over:
                self.back.struck(target)
            elif not told.landed and not told.note:
                told.note = "the run was done first" if target.done else "it had no effect"
            self.say(self._line(told))
            return attempt.number if over else after
        told.note = "the run was done first" if target.done else "interrupted"
        self.say(self._line(told))
        return after

    def _deal(self, target: Target, told: Dealt, attempt: AttemptRecord) -> None:
        told.attempt, told.step, told.doing = attempt.number, target.step(), target.doing()
        blow, began = told.blow, time.monotonic()
        try:
            with self.deals[blow.kind.name](self.scene, target, attempt) as effect:
                self._await(effect, began + blow.kind.patience)
                told.seconds = round(time.monotonic() - began, 2)
                told.landed = effect() and self._is_hit(target, blow, attempt.number)
        except UnableError as error:
            told.note = str(error)
        except BreachError as error:
            told.note, told.breach = str(error), True

    @contextmanager
    def _floor(self, told: Dealt) -> Iterator[None]:
        """The disk is that of all runs: while it is full no other blow falls, so that what one costs is its own doing."""
        alone = told.blow.kind.name == FILLS
        with self._turn:
            while (self._under_way if alone else self._filled) and not self.stop.is_set():
                self._turn.wait(PAUSE)
            self._under_way.append(told)
            self._filled = self._filled or alone
        try:
            yield
        finally:
            with self._turn:
                self._under_way.remove(told)
                self._filled = self._filled and not alone
                self._turn.notify_all()

    def _await(self, effect: Callable[[], bool], end: float) -> None:
        while not effect() and time.monotonic() < end and not self.stop.is_set():
            time.sleep(PAUSE)

    def _is_hit(self, target: Target, blow: Blow, attempt: int) -> bool:
        """Whether the attempt ended otherwise than by being finished."""
        if blow.kind.name == FILLS:
            return True
        for record in target.attempts():
            if record.number == attempt:
                finished = record.exit_code == 0 or (record.exit_code is None and target.done)
                return not finished or record.signal is not None
        return False

    def _line(self, told: Dealt) -> str:
        blow = told.blow
        where = f"at step {told.step} ({told.doing}), attempt {told.attempt}" if told.attempt else "not dealt"
        how = f"ended after {told.seconds} s" if told.landed else told.note
        word = "BREACH: " if told.breach else ""
        return f"blow {blow.number} on seed {blow.seed}: {blow.kind.name} {where}: {word}{how}"


def _pause(blow: Blow) -> float:
    """A save may last some milliseconds."""
    return QUICK_SECONDS if blow.moment in {Moment.SAVE, Moment.EVALUATION} else PAUSE
