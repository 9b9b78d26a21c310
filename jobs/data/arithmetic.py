"""Additions as text, `07+34=041`: made with integers alone, so the same rows come out of every version of every library."""

import hashlib
from collections.abc import Iterator
from math import isqrt
from typing import Final

from jobs.data.rows import Text
from jobs.errors import Refused
from jobs.order import mix, shuffled
from jobs.recipe import Builtin

KEY: Final = 0x73616D6562697473
"""Of the shuffle. Part of the data: another key is other data, and another hash."""


def count(digits: int) -> int:
    """How many rows there are: pairs without regard to order, so that 34+12 is not trained on where 12+34 is held out."""
    numbers: int = 10**digits
    return numbers * (numbers + 1) // 2


def row(number: int, digits: int) -> tuple[str, str]:
    """Prompt and answer of a row; 0 <= number < count(digits). Every number is zero-padded, so all rows have one shape."""
    pair = shuffled(number, count(digits), mix(KEY, digits))
    larger = (isqrt(8 * pair + 1) - 1) // 2
    smaller = pair - larger * (larger + 1) // 2
    first, second = (larger, smaller) if mix(KEY, digits, pair) & 1 else (smaller, larger)
    return f"{first:0{digits}d}+{second:0{digits}d}=", f"{first + second:0{digits + 1}d}"


def make(builtin: Builtin) -> tuple[list[Text], list[Text]]:
    """The rows to train on and those held out. Raises Refused when there are not as many, or when they are not those pinned.

    Training rows are taken from the start of the shuffle and validation rows from its end: more of one leaves the other
    alone."""
    existing = count(builtin.digits)
    if builtin.train_rows + builtin.validation_rows > existing:
        raise Refused(
            f"data.builtin: train_rows and validation_rows are {builtin.train_rows} + {builtin.validation_rows}, but there are "
            f"only {existing} additions of {builtin.digits} digits. Ask for fewer rows or for more digits"
        )
    train = [_text(number, builtin.digits) for number in range(builtin.train_rows)]
    held_out = range(existing - 1, existing - 1 - builtin.validation_rows, -1)
    validation = [_text(number, builtin.digits) for number in held_out]
    found = digest(train, validation)
    if found != builtin.sha256:
        raise Refused(
            f"data.builtin.sha256: the config pins {builtin.sha256}, but the rows made have {found}. "
            "If they are what you want, write that hash into the config"
        )
    return train, validation


def digest(train: list[Text], validation: list[Text]) -> str:
    """sha256 over the rows as lines, training and validation each under its own heading."""
    return hashlib.sha256("".join(_lines(train, validation)).encode("ascii")).hexdigest()


def _lines(train: list[Text], validation: list[Text]) -> Iterator[str]:
    for heading, rows in (("train", train), ("validation", validation)):
        yield f"{heading}\n"
        yield from (f"{text.prompt}{text.completion}\n" for text in rows)


def _text(number: int, digits: int) -> Text:
    prompt, answer = row(number, digits)
    return Text(prompt, answer, f"arithmetic row {number}")
