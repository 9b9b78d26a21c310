"""Slurm's notation for a length of time, read in one place. Standard library only."""

import re
from typing import Final

FORMS: Final = "HH:MM:SS or D-HH:MM:SS"
LONGEST: Final = 366 * 24 * 60

_CLOCK = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-9]{2}):([0-9]{2})", re.ASCII)
_MINUTES = re.compile(r"[0-9]{1,6}", re.ASCII)
_DAYS_HOURS = re.compile(r"([0-9]{1,3})-([0-9]{1,2})", re.ASCII)


def minutes(text: str) -> int:
    """Minutes, rounded up, of `90`, `01:30:00`, `1-12` (days-hours) or `1-12:00:00`.

    `MM:SS`, which Slurm also reads, is refused: people mean hours by it. So is 0, which Slurm takes for no limit.
    Raises ValueError with a sentence that says what is wrong."""
    seconds = _seconds(text)
    if seconds is None:
        raise ValueError(f"is not a length of time: write {FORMS}")
    if seconds == 0:
        raise ValueError("is no time at all, which Slurm takes for no limit")
    total = -(-seconds // 60)
    if total > LONGEST:
        raise ValueError("is longer than a year")
    return total


def clock(text: str) -> int:
    """As `minutes`, for files: only HH:MM:SS and D-HH:MM:SS, since `90` could be read as hours by the next person."""
    if not _CLOCK.fullmatch(text):
        raise ValueError(f"is not a length of time: write {FORMS}")
    return minutes(text)


def spelled(total: int) -> str:
    """Minutes as sbatch and --time read them."""
    days, rest = divmod(total, 24 * 60)
    text = f"{rest // 60:02}:{rest % 60:02}:00"
    return f"{days}-{text}" if days else text


def _seconds(text: str) -> int | None:
    if _MINUTES.fullmatch(text):
        return int(text) * 60
    if match := _DAYS_HOURS.fullmatch(text):
        return (int(match[1]) * 24 + int(match[2])) * 3600
    if match := _CLOCK.fullmatch(text):
        days, hours, mins, secs = (int(part or 0) for part in match.groups())
        if mins < 60 and secs < 60 and (match[1] is None or hours < 24):  # noqa: PLR2004 - a clock
            return ((days * 24 + hours) * 60 + mins) * 60 + secs
    return None
