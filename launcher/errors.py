"""What a user is told when something is wrong: what, where, the next command; one exit code per kind. Standard library only."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

WIDEST_LINE = 160


class ExitCode(IntEnum):
    """Exit codes of `launch`. Documented in docs/errors.md; a test compares."""

    OK = 0
    USAGE = 2
    """The command line itself: an unknown flag, a missing argument."""
    CONFIG = 3
    """The config: YAML, types, missing or unknown keys, hashes of data."""
    SOURCE = 4
    """Git: not a repository, something is not committed."""
    TREE = 5
    """The experiment's tree: the name is taken by another config, or the tree was damaged."""
    IMAGE = 6
    """The image or the locked environment cannot be made, or is not what was pinned."""
    CLUSTER = 7
    """Slurm: not there, refused the job, unknown partition, unknown site."""
    FILES = 8
    """The file system: no permission, no space."""
    RUN = 9
    """A run ended broken."""
    NOT_FOUND = 10
    """There is no such experiment, seed or attempt."""
    INTERNAL = 70
    """A bug of ours; a log was written that can be sent."""
    SAVED = 75
    """Stopped on request after saving; the same command goes on."""
    INTERRUPTED = 130
    """Ctrl-C before anything was started."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    what: str
    """One sentence or two, without the place and without a line break."""
    where: str = ""
    """`file:line: key.path`, or a path, or empty."""
    hint: str = ""
    """What to do, with the command if there is one. May have several lines."""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        if not self.hint:
            return head
        return (
            f"{head}\n    {self.hint}"
            if "\n" in self.hint or len(head) + len(self.hint) > WIDEST_LINE
            else f"{head} {self.hint}"
        )


class LaunchError(Exception):
    """Ends a command. Carries every problem found, so that they can be mended in one go. `cli` is the only place that prints it."""

    def __init__(self, code: ExitCode, problems: Iterable[Problem], evidence: str = "") -> None:
        self.code = code
        self.problems = tuple(problems)
        self.evidence = evidence
        """Output of a foreign tool, shown indented under the problems. Empty where there is none."""
        super().__init__("\n".join(map(str, self.problems)))


def fail(code: ExitCode, what: str, *, where: str = "", hint: str = "", evidence: str = "") -> LaunchError:
    """The common case of one problem: `raise fail(ExitCode.TREE, "...", where=..., hint=...)`."""
    return LaunchError(code, [Problem(what, where, hint)], evidence)
