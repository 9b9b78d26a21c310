"""A YAML file into a frozen value of a schema, or one error with every mistake as `file:line: key: what. hint`."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from launcher.config import document, hints, words
from launcher.config.mistake import Mistake, dotted
from launcher.errors import ExitCode, LaunchError, Problem, fail

SUFFIXES: Final = (".yaml", ".yml")

Model = TypeVar("Model", bound=BaseModel)


def read(path: Path, model: type[Model], kind: str) -> tuple[Model, str]:
    """The value of a file and its text. `kind` names it in messages: `config`, `site profile`.

    Raises LaunchError: FILES when the file may not be read, CONFIG for everything else."""
    text, wrong = document.decode(_bytes(path, kind))
    found = document.read(text) if not wrong else document.Document(mistakes=wrong)
    value: Model | None = None
    if isinstance(found.value, dict):
        try:
            value = model.model_validate(found.value)
        except ValidationError as error:
            known = {(mistake.path) for mistake in found.mistakes}
            found.mistakes += [m for m in words.mistakes(error, model) if m.path not in known]
    if found.mistakes or value is None:
        raise LaunchError(ExitCode.CONFIG, problems(path, found, found.mistakes))
    return value, text


def problems(path: Path, found: document.Document, mistakes: Iterable[Mistake]) -> list[Problem]:
    """In the order of the lines."""
    placed = [(mistake.line or found.line_of(mistake.path), mistake) for mistake in mistakes]
    placed.sort(key=lambda pair: pair[0])
    return [
        Problem(m.what, f"{path}:{line}: {dotted(m.path)}" if m.path else f"{path}:{line}", m.hint)
        for line, m in placed
    ]


def _bytes(path: Path, kind: str) -> bytes:
    where = str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise fail(ExitCode.CONFIG, f"is a folder; a {kind} is a .yaml file.", where=where, hint=_inside(path))
        if not stat.S_ISREG(status.st_mode):
            raise fail(ExitCode.CONFIG, f"is not an ordinary file; a {kind} is a .yaml file.", where=where)
        if path.suffix not in SUFFIXES:
            raise fail(ExitCode.CONFIG, f"ends in {path.suffix or 'nothing'}; a {kind} is a .yaml file.", where=where)
        with path.open("rb") as file:
            return file.read(document.LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise fail(ExitCode.CONFIG, "no such file.", where=where, hint=_near(path)) from error
    except ValueError as error:
        raise fail(ExitCode.CONFIG, f"is not the path of a file: {error}.", where=repr(where)) from error
    except OSError as error:
        raise fail(ExitCode.FILES, f"cannot be read: {error.strerror}.", where=where) from error


def _yaml_files(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix in SUFFIXES)
    except OSError:
        return []


def _inside(folder: Path) -> str:
    names = _yaml_files(folder)
    return f"In it: {', '.join(names[:8])}." if names else ""


def _near(path: Path) -> str:
    """A file that was probably meant: its name with a slip of the finger, without its suffix, or in configs/."""
    for folder in (path.parent, path.parent / "configs"):
        names = _yaml_files(folder)
        for name in (path.name, f"{path.name}.yaml"):
            if near := hints.close(name, names):
                return f"Did you mean {folder / near}?"
    return ""
