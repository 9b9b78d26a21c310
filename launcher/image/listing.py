"""What a store holds, and what was removed from it, for people and as JSON. Renders; decides nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from launcher.image.library import Pruned, Shelf
from launcher.store import Stored

UNITS: Final = ("B", "kB", "MB", "GB", "TB")
THOUSAND: Final = 1000
SPANS: Final = ((365 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes"))


def size(count: int | None) -> str:
    """Bytes in the largest unit that fits: `1.2 GB`; `?` where it is not known."""
    if count is None:
        return "?"
    power = min((len(str(count)) - 1) // 3, len(UNITS) - 1)
    return f"{count / THOUSAND**power:.1f} {UNITS[power]}" if power else f"{count} B"


def age(seconds: float) -> str:
    """A span in its largest unit, at least one: `3 days`."""
    for length, word in SPANS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {word if count > 1 else word[:-1]}"
    return "now"


def as_text(store: Path, shelves: Sequence[Shelf], clock: float) -> str:
    if not shelves:
        return f"The store is empty: {store}"
    rows = [("what", "name", "size", "last used", "used by", "")]
    rows += [
        (
            _kind(shelf.stored),
            shelf.stored.name[:12],
            size(shelf.stored.size),
            age(clock - shelf.last),
            _users(shelf),
            ", ".join(f"{key} {_short(value)}" for key, value in shelf.stored.about.items()),
        )
        for shelf in shelves
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(
            [
                *(
                    cell.rjust(width) if column == 2 else cell.ljust(width)  # noqa: PLR2004 - sizes stand at the right
                    for column, (cell, width) in enumerate(zip(row, widths, strict=False))
                ),
                row[5],
            ]
        ).rstrip()
        for row in rows
    ]
    total = sum(shelf.stored.size or 0 for shelf in shelves)
    return "\n".join([*lines, "", f"{size(total)} in {store}"])


def as_json(store: Path, shelves: Sequence[Shelf]) -> dict[str, Any]:
    return {
        "store": str(store),
        "bytes": sum(shelf.stored.size or 0 for shelf in shelves),
        "stored": [
            {
                **_item(shelf.stored),
                "last_used": shelf.last,
                "used_by": [
                    {"experiment": use.tree.name, "tree": str(use.tree), "unfinished": use.unfinished}
                    for use in shelf.uses
                ],
            }
            for shelf in shelves
        ],
    }


def pruned_text(done: Pruned, *, dry: bool) -> str:
    verb = "would be removed" if dry else "removed"
    lines = [f"{_kind(item)} {item.name[:12]}: {verb}, {size(item.size)}" for item in done.removed]
    lines += [f"{_kind(shelf.stored)} {shelf.stored.name[:12]}: kept, {_why(shelf)}" for shelf in done.kept]
    if not done.removed:
        return "\n".join([*lines, "Nothing to remove."])
    return "\n".join([*lines, f"{size(done.freed)} {'would be ' if dry else ''}freed."])


def pruned_json(done: Pruned, *, dry: bool) -> dict[str, Any]:
    return {
        "dry_run": dry,
        "bytes_freed": done.freed,
        "removed": [_item(item) for item in done.removed],
        "kept": [{**_item(shelf.stored), "why": _why(shelf)} for shelf in done.kept],
    }


def _item(item: Stored) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "engine": item.engine or None,
        "name": item.name,
        "bytes": item.size,
        "made": item.since,
        "about": dict(item.about),
    }


def _why(shelf: Shelf) -> str:
    names = [use.tree.name for use in shelf.uses if use.unfinished]
    return f"used by {', '.join(names)}" if names else "in use at this moment"


def _kind(item: Stored) -> str:
    return f"{item.kind} ({item.engine})" if item.engine else item.kind


def _users(shelf: Shelf) -> str:
    words = [use.tree.name + ("" if use.unfinished else " (done)") for use in shelf.uses]
    return ", ".join(words) or "-"


def _short(value: str) -> str:
    """A digest is known by its beginning."""
    head, mark, digest = value.partition("sha256:")
    return f"{head}{mark}{digest[:12]}"
