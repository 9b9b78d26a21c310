"""Rows of the user's own: files of JSON lines, pinned by hash."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from jobs.data.rows import Text
from jobs.errors import Refused
from jobs.recipe import TextFile

SHOWN: Final = 20
"""Mistakes of one file that are shown; the rest is counted."""


class RowMistakeError(ValueError):
    """What is wrong with one row, without its place."""


def read(file: TextFile, project_root: Path) -> list[Text]:
    """The rows of a file. Raises Refused: not there, not the file that is pinned, or with every broken row as `file:line`."""
    path = project_root / file.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"{file.path}: cannot be read: {error.strerror}. Paths start at {project_root}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise Refused(
            f"{file.path}: is not the file that the config pins. Pinned: {file.sha256}; it has: {found}. "
            "Bring back the file, or start a new experiment with the new hash"
        )
    rows, mistakes = [], []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                rows.append(_row(line, f"{file.path}:{number}"))
            except RowMistakeError as mistake:
                mistakes.append(f"{file.path}:{number}: {mistake}")
    if rows and not mistakes:
        mistakes = [
            f"{row.where}: has {_kind(row)}, but {rows[0].where} has {_kind(rows[0])}; a file holds one kind"
            for row in rows
            if bool(row.prompt) != bool(rows[0].prompt)
        ]
    refuse(mistakes)
    if not rows:
        raise Refused(f"{file.path}: holds no row")
    return rows


def refuse(mistakes: list[str]) -> None:
    """Raises Refused with the mistakes, one a line, unless there are none."""
    if mistakes:
        more = len(mistakes) - SHOWN
        raise Refused("\n".join(mistakes[:SHOWN]) + (f"\nand {more} more" if more > 0 else ""))


def _row(line: bytes, where: str) -> Text:
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise RowMistakeError(f"is not UTF-8, at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise RowMistakeError(f"is not JSON: {error.msg}, at character {error.colno}") from error
    if not isinstance(value, dict):
        raise RowMistakeError('is not an object: {"text": ...} or {"prompt": ..., "completion": ...}')
    keys = set(value)
    if keys not in ({"text"}, {"prompt", "completion"}):
        given = ", ".join(sorted(keys)) or "nothing"
        raise RowMistakeError(f"has {given}; a row has either text, or prompt and completion, and nothing else")
    for key, text in value.items():
        if not isinstance(text, str):
            raise RowMistakeError(f"{key} is not text: {json.dumps(text)[:40]}")
        if not text:
            raise RowMistakeError(f"{key} is empty")
    return Text(value.get("prompt", ""), value["text"] if "text" in value else value["completion"], where)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys, json keeps the last and says nothing."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise RowMistakeError("gives a key twice")
    return value


def _kind(row: Text) -> str:
    return "prompt and completion" if row.prompt else "text"
