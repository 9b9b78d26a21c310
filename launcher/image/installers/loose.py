"""What every rule about an installer shares: what it may take packages from, its options, and what is not pinned."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from launcher.image.shellwords import Word


@dataclass(frozen=True, slots=True)
class Locked:
    """What a recipe may take packages from."""

    pins: Mapping[str, Mapping[str, str]]
    """Path of a lock: its packages and their versions."""
    files: Mapping[str, str]
    """Path of any other file that the recipe can copy: its text."""
    snapshot: bool = False
    """The package archive of the system was set to a moment before."""

    def lock(self, path: str) -> Mapping[str, str] | None:
        """The pins of the lock of that name, wherever it was copied to."""
        name = PurePosixPath(path).name
        return next((pins for own, pins in self.pins.items() if PurePosixPath(own).name == name), None)

    def file(self, path: str) -> tuple[str, str] | None:
        """Path and text of the file of that name."""
        name = PurePosixPath(path).name
        return next(((own, text) for own, text in self.files.items() if PurePosixPath(own).name == name), None)

    @property
    def first(self) -> str:
        return next((PurePosixPath(path).name for path in self.pins), "requirements.lock")


@dataclass(frozen=True, slots=True)
class Loose:
    """One thing that is not pinned."""

    word: Word
    what: str
    hint: str


Rule = Callable[[Sequence[Word], Locked], Iterator[Loose]]
"""The program's name, its arguments, and what is wrong with them. Nothing for a call that installs nothing."""


def options(words: Sequence[Word], values: frozenset[str]) -> tuple[list[Word], dict[str, list[Word]]]:
    """Plain arguments, and the values of each option. `--name=value`, `--name value` and `-rvalue` are the same."""
    plain: list[Word] = []
    given: dict[str, list[Word]] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.text.partition("=")
        if not word.text.startswith("-") or word.text == "-":
            plain.append(word)
        elif equals and word.text.startswith("--"):
            given.setdefault(name, []).append(Word(value, word.line, word.unknown))
        elif word.text in values:
            given.setdefault(word.text, []).extend([one for one in [next(rest, None)] if one])
        elif word.text[:2] in values and not word.text.startswith("--"):
            given.setdefault(word.text[:2], []).append(Word(word.text[2:], word.line, word.unknown))
        else:
            given.setdefault(word.text, [])
    return plain, given


def told(word: Word, of: str) -> Iterator[Loose]:
    """Refuses a word that holds what cannot be told."""
    if word.unknown:
        hint = "Write the version out, or set the variable to a plain text in the recipe."
        yield Loose(word, f"{of} `{word.text}`: {word.unknown} cannot be told without running it", hint)


def each(words: Sequence[Word], exact: re.Pattern[str], of: str, hint: str) -> Iterator[Loose]:
    for word in words:
        if word.unknown:
            yield from told(word, of)
        elif not exact.fullmatch(word.text):
            yield Loose(word, f"{of} {word.text} without an exact version", hint)


def is_archive(text: str, ending: str) -> bool:
    """A file that the recipe has already, and not one that is fetched."""
    return text.endswith(ending) and "/" in text and "://" not in text


def name_of(words: Sequence[Word]) -> str:
    return words[0].text.rpartition("/")[2]
