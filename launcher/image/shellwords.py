"""Words of a shell: quotes and expansions. What cannot be told without running the script is marked, not guessed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

JOINED: Final = "\ue000"
"""Where a Dockerfile's continuation was taken out: nothing to a shell, a line to those who count."""
SPLIT: Final = "\ue001"
"""Where an unquoted value falls into several words."""
_NAME: Final = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")
_BRACES: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<default>:?-(?P<value>[^$`]*))?")


@dataclass(frozen=True, slots=True)
class Word:
    """One word, without its quotes."""

    text: str
    line: int
    unknown: str = ""
    """What in it cannot be told: `$NAME`, or empty. It stands in `text` as it was written."""


@dataclass(slots=True)
class Command:
    """A simple command, with what flows into it."""

    words: list[Word]
    line: int
    stdin: Word | None = None
    """The text of its here-document."""
    piped: bool = False
    """Its input is the output of the command before it."""
    pipes: bool = False
    writes: bool = False
    """Its output goes to a file."""


class NotUnderstoodError(Exception):
    """A script that this reader cannot follow; `line` and the reason."""

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        super().__init__(reason)


Evaluate = Callable[[Sequence[Command]], str | None]
"""The output of the commands of a `$(...)`, where it can be told."""


@dataclass(slots=True)
class Piece:
    """A word as it is being read."""

    line: int
    text: str = ""
    unknown: str = ""
    quoted: bool = False


@dataclass
class WordReader:
    """Reads on in `text` from `at`, counting lines."""

    text: str
    line: int
    values: dict[str, str | None]
    """Variables that are set; None: to something that cannot be told."""
    evaluate: Evaluate
    found: list[Command] = field(default_factory=list)
    at: int = 0

    def script(self, text: str, at: int, end: str) -> "WordReader":
        """What reads the commands of a substitution has done so, up to behind `end`."""
        raise NotImplementedError

    def substitutes(self) -> bool:
        """Whether a `<(...)` or `>(...)` begins here."""
        return self.text.startswith(("<(", ">("), self.at)

    def character(self, piece: Piece, character: str) -> None:
        """Read on from an unquoted character."""
        if character == JOINED:
            self.line += 1
            self.at += 1
        elif character == "\\":
            following = self.text[self.at + 1 : self.at + 2]
            self.line += following == "\n"
            piece.text += "" if following == "\n" else following
            self.at += 2
        elif character == "'":
            self._single_quotes(piece)
        elif character == '"':
            self._double_quotes(piece)
        elif character in "$`" or self.substitutes():
            self._dollar(piece, split=True)
        else:
            piece.text += character
            self.at += 1

    def _single_quotes(self, piece: Piece) -> None:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise NotUnderstoodError(self.line, "a quote (') is not closed")
        inside = self.text[self.at + 1 : end]
        self.line += inside.count("\n") + inside.count(JOINED)
        piece.text, piece.quoted, self.at = piece.text + inside.replace(JOINED, ""), True, end + 1

    def _double_quotes(self, piece: Piece) -> None:
        start, piece.quoted = self.line, True
        self.at += 1
        while True:
            character = self.text[self.at : self.at + 1]
            if character == '"':
                self.at += 1
                return
            if not character:
                raise NotUnderstoodError(start, 'a quote (") is not closed')
            if character == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                piece.text += "" if following == "\n" else following if following in '$`"\\' else "\\" + following
                self.line += following == "\n"
                self.at += 2
            elif character in "$`":
                self._dollar(piece, split=False)
            else:
                self.line += character in ("\n", JOINED)
                piece.text += "" if character == JOINED else character
                self.at += 1

    def _dollar(self, piece: Piece, *, split: bool) -> None:
        """A `$` or a backquote: its value, or what cannot be told."""
        start = self.at
        value = self._expansion()
        written = self.text[start : self.at].replace(JOINED, "")
        if value is None:
            piece.unknown = piece.unknown or written
            piece.text += written.replace("\n", " ")
        else:
            piece.text += re.sub(r"\s+", SPLIT, value) if split else value

    def _expansion(self) -> str | None:
        rest = self.text[self.at : self.at + 3]
        if rest == "$((":
            end = self.text.find("))", self.at)
            self.at = len(self.text) if end < 0 else end + 2
            return None
        if rest[:2] in {"$(", "<(", ">("}:
            self.at += 2
            return self._substitution(self.at, rest[:2])
        if rest[0] == "`":
            end = self.text.find("`", self.at + 1)
            if end < 0:
                raise NotUnderstoodError(self.line, "a backquote is not closed")
            inner = self.script(self.text[:end], self.at + 1, "")
            self.at, self.line = end + 1, inner.line
            self.found += inner.found
            return self.evaluate(inner.found)
        if rest[:2] == "${":
            return self._braces()
        if rest[:2] == "$'":
            quoted = re.compile(r"(?:[^'\\]|\\.)*'").match(self.text, self.at + 2)
            if quoted is None:
                raise NotUnderstoodError(self.line, "a quote ($') is not closed")
            self.at = quoted.end()
            return None if "\\" in quoted[0] else quoted[0][:-1]
        name = _NAME.match(self.text, self.at + 1)
        self.at = name.end() if name else self.at + 1
        return self.values.get(name[0]) if name else "$"

    def _substitution(self, start: int, sign: str) -> str | None:
        inner = self.script(self.text, start, ")")
        self.at, self.line = inner.at, inner.line
        self.found += inner.found
        return self.evaluate(inner.found) if sign == "$(" else None

    def _braces(self) -> str | None:
        end = self.text.find("}", self.at)
        if end < 0:
            raise NotUnderstoodError(self.line, "a brace (${) is not closed")
        inside, self.at = self.text[self.at + 2 : end], end + 1
        match = _BRACES.fullmatch(inside)
        if match is None:
            return None
        if match["name"] in self.values or not match["default"]:
            return self.values.get(match["name"])
        return match["value"]
