"""An Apptainer definition as its headers and sections, and what of them is not pinned (R12, R26)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from launcher.errors import Problem
from launcher.image import commands
from launcher.image.installers.loose import Locked
from launcher.image.pinned import DIGEST, base_problem

_SECTION: Final = re.compile(r"%(\w+)(.*)")
_HEADER: Final = re.compile(r"\s*([A-Za-z]\w*)\s*:\s*(.*?)\s*(?:\s#.*)?")
_TEMPLATE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_LIBRARY: Final = re.compile(r"[^@\s]+[:@]sha256\.[0-9a-f]{64}")
_BUILD: Final = frozenset({"post", "appinstall", "test", "apptest"})
_ON_HOST: Final = frozenset({"pre", "setup"})
_SECTIONS: Final = frozenset(
    {"files", "environment", "startscript", "runscript", "labels", "help", "arguments"}
    | {"apprun", "applabels", "appenv", "apphelp", "appfiles", "appstart"}
)


@dataclass(slots=True)
class _Section:
    name: str
    arguments: str
    line: int
    text: str = ""


@dataclass(slots=True)
class _Stage:
    line: int
    headers: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Lower-case name: value and line."""
    sections: list[_Section] = field(default_factory=list)


def check(path: str, text: str, given: Mapping[str, str], locked: Locked) -> tuple[str, list[Problem]]:
    """The image that the last stage starts from, and all that is not pinned.

    `given`: what the build sets in the place of a default of %arguments; BASE where the config has one."""
    found = list(_stages(text))
    values: dict[str, str | None] = {}
    for stage in found:
        values |= _arguments(stage)
    values |= given
    problems, used = [], ""
    for stage in found:
        used, wrong = _from(stage, values, path)
        problems += wrong
        for section in stage.sections:
            problems += _section(section, values, locked, path)
    takes = any("BASE" in _TEMPLATE.findall(value) for stage in found for value, _ in stage.headers.values())
    if not found:
        hint = "Write Bootstrap: docker and From: {{ BASE }}, with BASE=name@sha256:... in %arguments."
        problems.append(Problem("No Bootstrap: the image has no base.", f"{path}:1", hint))
    elif "BASE" in given and not takes:
        what = f"The config's image.base is {given['BASE']}, which no From takes."
        problems.append(Problem(what, f"{path}:1", "Write From: {{ BASE }}, and its default in %arguments."))
    return used, problems


def _stages(text: str) -> Iterator[_Stage]:
    """A stage begins with its Bootstrap."""
    stage: _Stage | None = None
    section: _Section | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header and header[1].lower() == "bootstrap":
            if stage is not None:
                yield stage
            stage, section = _Stage(number, {"bootstrap": (header[2], number)}), None
        elif stage is None:
            continue
        elif match := _SECTION.match(line):
            section = _Section(match[1].lower(), match[2].strip(), number)
            stage.sections.append(section)
        elif section is not None:
            section.text += f"{line}\n"
        elif header:
            stage.headers[header[1].lower()] = (header[2], number)
    if stage is not None:
        yield stage


def _arguments(stage: _Stage) -> dict[str, str | None]:
    """The defaults of `%arguments`."""
    found: dict[str, str | None] = {}
    for section in stage.sections:
        if section.name == "arguments":
            lines = (line.partition("#")[0].strip() for line in section.text.splitlines())
            found |= {
                name.strip(): value.strip().strip("\"'")
                for name, is_, value in (x.partition("=") for x in lines)
                if is_
            }
    return found


def _filled(text: str, values: Mapping[str, str | None]) -> str:
    """With its templates filled in; one without a value stays."""
    return _TEMPLATE.sub(lambda match: values.get(match[1]) or match[0], text)


def _from(stage: _Stage, values: Mapping[str, str | None], path: str) -> tuple[str, list[Problem]]:
    agent, line = stage.headers["bootstrap"]
    image, at = stage.headers.get("from", ("", stage.line))
    agent, image = _filled(agent, values).lower(), _filled(image, values)
    if agent not in {"docker", "oras", "library"}:
        hint = "Write Bootstrap: docker, and From: name@sha256:..."
        return image, [Problem(f"Bootstrap: {agent} names nothing by its content.", f"{path}:{line}", hint)]
    if not image:
        return image, [Problem("From names no image.", f"{path}:{at}", "Write From: name@sha256:...")]
    if template := _TEMPLATE.search(image):
        hint = f"Give it a default: %arguments with {template[1]}=name@sha256:..."
        return image, [Problem(f"The base `{image}` has no value.", f"{path}:{at}", hint)]
    if DIGEST.match(image) or (agent == "library" and _LIBRARY.fullmatch(image)):
        return image, []
    return image, [base_problem(image, f"{path}:{at}")]


def _section(section: _Section, values: Mapping[str, str | None], locked: Locked, path: str) -> Iterator[Problem]:
    where = f"{path}:{section.line}"
    if section.name in _ON_HOST:
        hint = "Write it into %post, which runs in the image."
        yield Problem(f"%{section.name} runs on this machine, outside of the image.", where, hint)
    elif section.name in _BUILD:
        yield from _script(section, values, locked, path)
    elif section.name in {"files", "appfiles"}:
        yield from _files(section, values, locked, path)
    elif section.name not in _SECTIONS:
        yield Problem(f"%{section.name} is no section of a definition.", where)
    elif section.name != "arguments":
        for number, line in enumerate(section.text.splitlines(), start=section.line + 1):
            if commands.PASSWORD.search(line):
                yield Problem(commands.SECRET[0], f"{path}:{number}", commands.SECRET[1])


def _script(section: _Section, values: Mapping[str, str | None], locked: Locked, path: str) -> Iterator[Problem]:
    interpreter = re.search(r"(?:^|\s)-c\s+(\S+)", section.arguments)
    if interpreter and PurePosixPath(interpreter[1]).name not in commands.SHELLS:
        what = f"%{section.name} is run by {interpreter[1]}: its commands cannot be checked."
        yield Problem(what, f"{path}:{section.line}", "Write it for /bin/sh or /bin/bash.")
        return
    lines = [_filled(line, values) for line in section.text.splitlines()]
    for number, line in enumerate(lines, start=section.line + 1):
        if template := _TEMPLATE.search(line):
            hint = f"Give it a default: %arguments with {template[1]}=..."
            yield Problem(f"{template[0]} has no value.", f"{path}:{number}", hint)
    yield from commands.check("\n".join(lines), section.line + 1, {}, locked, path)


def _files(section: _Section, values: Mapping[str, str | None], locked: Locked, path: str) -> Iterator[Problem]:
    """What is copied in is of the commit: an absolute path would be this machine's."""
    if section.arguments.startswith("from "):
        return  # a stage of this definition
    for number, line in enumerate(section.text.splitlines(), start=section.line + 1):
        words = _filled(line, values).partition("#")[0].split()
        if not words:
            continue
        source = words[0].strip("\"'").removeprefix("./").rstrip("/")
        there = {*locked.files, *locked.pins}
        if source not in there and not any(PurePosixPath(one).is_relative_to(source) for one in there):
            hint = "Add it there, by its path in the repository."
            yield Problem(f"{source} is neither a lock nor among image.files.", f"{path}:{number}", hint)
