"""One mistake in a YAML file, before it is known on which line its key stands. Standard library only."""

from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""`("training", "optimizer", "betas", 1)`."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, and at which key."""

    path: KeyPath
    what: str
    """A sentence without its subject: `is 0; it must be at least 1.`"""
    hint: str = ""
    line: int | None = None
    """Where it is not the line of the key: the second of two equal keys, a syntax error."""


class Mistakes(ValueError):  # noqa: N818 - it is what validators raise, and it holds several
    """Raised by a validator of the schema that finds more than one thing, or knows the key better than pydantic."""

    def __init__(self, found: Iterable[Mistake]) -> None:
        self.found = tuple(found)
        """Paths are relative to the value that was validated."""
        super().__init__("; ".join(f"{dotted(mistake.path)}: {mistake.what}" for mistake in self.found))


def dotted(path: KeyPath) -> str:
    """`training.optimizer.betas[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
