"""What rows are, first as text and then as tokens."""

from array import array
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

IGNORED: Final = -100
"""Label of a token that does not count: torch's and transformers' convention."""


class Text(NamedTuple):
    """One row as it was written."""

    prompt: str
    """Read, not learnt. Empty for a row that is learnt as a whole."""
    completion: str
    """Learnt, and counted in the loss."""
    where: str
    """For an error: `data/train.jsonl:17`."""


class Example(NamedTuple):
    """One row as tokens. Both lists have the same length, without padding."""

    input_ids: list[int]
    labels: list[int]
    """The token itself where it counts, IGNORED where it does not. Not shifted: the loss compares the prediction made at
    position t with the label at t + 1."""


class Rows:
    """Encoded rows, in two flat arrays: a million short rows are not a million lists."""

    def __init__(self, rows: Iterable[tuple[list[int], int]], *, answers: bool) -> None:
        """From (tokens, how many of them at the start do not count)."""
        self.answers = answers
        """Whether rows have a prompt and an answer to it, so that an answer can be right."""
        self._tokens, self._ends, self._skips = array("i"), array("q", [0]), array("i")
        for tokens, skip in rows:
            self._tokens.extend(tokens)
            self._ends.append(len(self._tokens))
            self._skips.append(skip)

    def __len__(self) -> int:
        return len(self._skips)

    def __getitem__(self, number: int) -> Example:
        """Raises IndexError outside of the rows."""
        if not 0 <= number < len(self):
            msg = f"row {number} of {len(self)}"
            raise IndexError(msg)
        tokens = self._tokens[self._ends[number] : self._ends[number + 1]].tolist()
        skip = self._skips[number]
        return Example(tokens, [IGNORED] * skip + tokens[skip:])

    def __iter__(self) -> Iterator[Example]:
        return (self[number] for number in range(len(self)))
