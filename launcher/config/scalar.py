"""What an unquoted word of YAML means: the core schema of YAML 1.2, less what readers disagree about. Stdlib only.

YAML 1.1 (PyYAML) and YAML 1.2 (editors, most other languages) read some words differently. In a file of seeds and
rates that is a danger, so such a word is refused with the ways to write it, but for two kinds that can mean only one:
`1e-4` and `-.5` are numbers (texts to PyYAML), and dates and times of day are texts."""

import math
import re
from typing import Final

Scalar = str | int | float | bool | None

WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
OLD_TRUE: Final = frozenset({"yes", "Yes", "YES", "on", "On", "ON"})
OLD_FALSE: Final = frozenset({"no", "No", "NO", "off", "Off", "OFF"})

INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+", re.ASCII)
OTHER_BASE: Final = re.compile(r"[-+]?0(o[0-7]+|b[01_]+|x[0-9a-fA-F_]+)", re.ASCII)
GROUPED: Final = re.compile(r"[-+]?(?=[^eE]*_)([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?", re.ASCII)

MOST_DIGITS: Final = 300
"""More than any number of a config needs, and far below where Python refuses to convert."""


class RefusedScalarError(ValueError):
    """The word cannot be read one way only, or is no number that a config may hold."""

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(what)


def plain(word: str) -> Scalar:
    """The value of an unquoted word. Raises RefusedScalarError."""
    if word in WORDS:
        return WORDS[word]
    if word in OLD_TRUE | OLD_FALSE:
        meant = "true" if word in OLD_TRUE else "false"
        raise RefusedScalarError(
            f"`{word}` is {meant} to some readers of YAML and a text to others.", f'Write {meant}, or "{word}".'
        )
    if INTEGER.fullmatch(word) or HEXADECIMAL.fullmatch(word):
        return _integer(word)
    _refuse_unclear_number(word)
    return _float(word) if FLOAT.fullmatch(word) else word


def _refuse_unclear_number(word: str) -> None:
    if NOT_FINITE.fullmatch(word):
        raise RefusedScalarError(f"`{word}` is not a value that a config may hold: numbers are finite.")
    if LEADING_ZERO.fullmatch(word):
        shorter = word.replace("0", "", 1) if int(word) == 0 else re.sub(r"^([-+]?)0+", r"\1", word)
        shorter = shorter if int(word) else "0"
        raise RefusedScalarError(
            f"`{word}` is octal to some readers of YAML and decimal to others.", f'Write {shorter}, or "{word}".'
        )
    if OTHER_BASE.fullmatch(word):
        raise RefusedScalarError(
            f"`{word}` is a number to some readers of YAML and a text to others.", "Write it in decimal."
        )
    if GROUPED.fullmatch(word):
        raise RefusedScalarError(
            f"`{word}` is a number to some readers of YAML and a text to others.",
            f'Write {word.replace("_", "")}, or "{word}".',
        )


def _integer(word: str) -> int:
    if len(word) > MOST_DIGITS:
        raise RefusedScalarError(f"is a number of {len(word)} digits; at most {MOST_DIGITS} are read.")
    return int(word, 16) if "x" in word else int(word)


def _float(word: str) -> float:
    if len(word) > MOST_DIGITS:
        raise RefusedScalarError(f"is a number of {len(word)} digits; at most {MOST_DIGITS} are read.")
    value = float(word)
    if math.isinf(value):
        raise RefusedScalarError(f"`{word}` is larger than any number that a computer holds in 64 bits.")
    if value == 0 and re.search(r"[1-9]", re.split(r"[eE]", word)[0]):
        raise RefusedScalarError(f"`{word}` is so small that it would be read as 0.", "Write 0, or a larger number.")
    return value


def is_text(word: str) -> bool:
    """Whether a text may stand unquoted and be read as itself."""
    try:
        return plain(word) == word
    except RefusedScalarError:
        return False
