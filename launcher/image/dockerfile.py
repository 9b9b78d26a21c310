"""A Dockerfile as its instructions, and what each of them brings in that is not pinned (R12, R26)."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from launcher.errors import Problem
from launcher.image import commands
from launcher.image.installers.loose import Locked, options
from launcher.image.pinned import DIGEST, base_problem
from launcher.image.shell import parse
from launcher.image.shellwords import JOINED, NotUnderstoodError, Word

_INSTRUCTION: Final = re.compile(r"\s*([A-Za-z]+)(?:\s+|$)")
_DIRECTIVE: Final = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*")
_HERE: Final = re.compile(r"(?<![<\\])<<(-?)\s*([\"']?)([A-Za-z_][\w.]*)\2")
_CHECKSUM: Final = re.compile(r"sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
_GIT_COMMIT: Final = re.compile(r"\S+#[0-9a-f]{40}(:.*)?")
_SHELLS: Final = frozenset({"/bin/sh", "sh", "/bin/bash", "bash", "/usr/bin/bash", "/bin/dash", "/bin/ash"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """`NAME rest`. A continuation is `JOINED` in the rest, a here-document stands in it as it is."""

    name: str
    rest: str
    line: int


@dataclass(slots=True)
class _State:
    """What an instruction needs of those before it."""

    path: str
    locked: Locked
    given: Mapping[str, str]
    """What the build sets: in the place of the defaults of these ARGs."""
    arguments: dict[str, str | None] = field(default_factory=dict)
    """ARGs before the first FROM."""
    values: dict[str, str | None] = field(default_factory=dict)
    """ARG and ENV of this stage."""
    stages: dict[str, str] = field(default_factory=dict)
    """Name or number of a stage: the image that it starts from in the end."""
    takes_base: bool = False
    used: str = ""
    problems: list[Problem] = field(default_factory=list)

    def say(self, line: int, what: str, hint: str = "") -> None:
        self.problems.append(Problem(what, f"{self.path}:{line}", hint))


def check(path: str, text: str, given: Mapping[str, str], locked: Locked) -> tuple[str, list[Problem]]:
    """The image that the last stage starts from, and all that is not pinned.

    `given`: what the build sets in the place of an ARG's default; BASE where the config has one."""
    state = _State(path, locked, given)
    state.problems += _directives(text, path)
    for instruction in instructions(text):
        moved = instruction.name in {"RUN", "COPY"} and commands.sets_snapshot(instruction.rest)
        state.locked = replace(locked, snapshot=(state.locked.snapshot or moved) and instruction.name != "FROM")
        handler = _INSTRUCTIONS.get(instruction.name)
        if handler is not None:
            handler(instruction, state)
        elif instruction.name not in _HARMLESS:
            state.say(instruction.line, f"{instruction.name or 'This line'} is no instruction of a Dockerfile.")
    if not state.stages:
        state.say(1, "No FROM: the image has no base.", "Write ARG BASE=name@sha256:... and FROM ${BASE}.")
    elif "BASE" in given and not state.takes_base:
        state.say(
            1,
            f"The config's image.base is {given['BASE']}, which no FROM takes.",
            "Write ARG BASE=... and FROM ${BASE}.",
        )
    elif state.used == "scratch":
        state.say(1, "The image starts from scratch: it has no base that could be recorded.", "Name one by digest.")
    return state.used, state.problems


def instructions(text: str) -> Iterator[Instruction]:
    """As the builder reads them: continuations, comments within them, here-documents."""
    escape = "`" if re.match(r"(#.*\n)*#\s*escape\s*=\s*`", text) else "\\"
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        match = _INSTRUCTION.match(lines[at])
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        first = at
        line = lines[at][match.end() :] if match else lines[at]
        at += 1
        parts = [line]
        while parts[-1].rstrip().endswith(escape) and at < len(lines):
            parts[-1] = parts[-1].rstrip()[:-1] + JOINED
            while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
                parts.append(JOINED)
                at += 1
            if at < len(lines):
                parts.append(lines[at])
                at += 1
        rest, name = "".join(parts), match[1].upper() if match else ""
        for dash, _, end in _HERE.findall(rest) if name in {"RUN", "COPY", "ADD"} else ():
            rest += "\n"
            while at < len(lines):
                line = lines[at]
                at += 1
                rest += line
                if (line.lstrip("\t") if dash else line) == end:
                    break
                rest += "\n"
        yield Instruction(name, rest, first + 1)


def _directives(text: str, path: str) -> Iterator[Problem]:
    """`# syntax=` names an image, too: the one that reads the Dockerfile."""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            return
        if match[1].lower() == "syntax" and not DIGEST.match(match[2]):
            yield base_problem(match[2], f"{path}:{number}", "The image that `# syntax` names")


def words_of(instruction: Instruction, values: Mapping[str, str | None]) -> list[Word]:
    """Its words, ARG and ENV filled in. The text of a here-document is not among them."""
    try:
        found = parse(instruction.rest.split("\n", maxsplit=1)[0], instruction.line, values, lambda _: None)
    except NotUnderstoodError:
        return [Word(instruction.rest, instruction.line, instruction.rest)]
    return [word for command in found for word in command.words]


def _arg(instruction: Instruction, state: _State) -> None:
    for word in _assignments(instruction, state):
        name, given, value = word.text.partition("=")
        told = value if given and not word.unknown else None
        if not given and state.stages:
            told = state.arguments.get(name, state.values.get(name))
        told = state.given.get(name, told)
        (state.values if state.stages else state.arguments)[name] = told


def _env(instruction: Instruction, state: _State) -> None:
    words = _assignments(instruction, state)
    if len(words) > 1 and "=" not in words[0].text:  # the old form, `ENV NAME VALUE`
        state.values[words[0].text] = None if any(w.unknown for w in words) else " ".join(w.text for w in words[1:])
        return
    for word in words:
        name, _, value = word.text.partition("=")
        state.values[name] = None if word.unknown else value
    for word in words:
        if commands.PASSWORD.search(word.text):
            state.say(word.line, *commands.SECRET)


def _assignments(instruction: Instruction, state: _State) -> list[Word]:
    """`A=b C="d e"` as words: to a shell they would be assignments, and gone."""
    values = state.values if state.stages else state.arguments
    marked = Instruction(instruction.name, f"_ {instruction.rest}", instruction.line)
    return words_of(marked, values)[1:]


def _from(instruction: Instruction, state: _State) -> None:
    given = dict(state.arguments)
    plain, _ = options(words_of(instruction, given), frozenset())
    if not plain:
        state.say(instruction.line, "FROM names no image.")
        return
    image = plain[0]
    state.takes_base = state.takes_base or re.search(r"\$\{?BASE\b", instruction.rest) is not None
    used = state.stages.get(image.text.lower())
    if used is None:
        used = image.text
        if image.unknown:
            hint = "Give it a default above FROM: ARG NAME=name@sha256:..."
            state.say(image.line, f"The base `{image.text}` has no value.", hint)
        elif used != "scratch" and not DIGEST.match(used):
            state.problems.append(base_problem(used, f"{state.path}:{image.line}"))
    state.stages[str(len([one for one in state.stages if one.isdecimal()]))] = used
    if len(plain) == 3 and plain[1].text.lower() == "as":  # noqa: PLR2004 - FROM image AS name
        state.stages[plain[2].text.lower()] = used
    state.used, state.values = used, {}


def _run(instruction: Instruction, state: _State) -> None:
    rest, line = instruction.rest, instruction.line
    while match := re.match(rf"\s*{JOINED}?\s*--(mount|network|security|device)=(\S+)", rest):
        if found := re.search(r"(?:^|,)from=([^,]+)", match[2]):
            _image_of(Word(found[1].strip(JOINED), line), state, "RUN --mount=from")
        line += match[0].count(JOINED)
        rest = rest[match.end() :]
    script = rest.lstrip(JOINED + " \t")
    line += rest[: len(rest) - len(script)].count(JOINED)
    rest = script
    if exact := _exec_form(rest):
        rest = " ".join("'" + word.replace("'", "'\\''") + "'" for word in exact)
    state.problems += commands.check(rest, line, state.values, state.locked, state.path)


def _exec_form(rest: str) -> list[str] | None:
    """`["pip", "install"]`, which no shell sees."""
    try:
        found = json.loads(rest.replace(JOINED, " "))
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def _image_of(word: Word, state: _State, of: str) -> None:
    """Another image that something is taken from: a stage of this file, or one by digest."""
    if word.text.lower() in state.stages or (not word.unknown and DIGEST.match(word.text)):
        return
    if word.unknown:
        state.say(word.line, f"{of}={word.text}: the image has no value.", "Write name@sha256:... there.")
    else:
        state.problems.append(base_problem(word.text, f"{state.path}:{word.line}", f"The image of {of}"))


def _copy(instruction: Instruction, state: _State) -> None:
    plain, given = options(words_of(instruction, state.values), frozenset())
    for image in given.get("--from", ()):
        _image_of(image, state, "COPY --from")
    if instruction.name != "ADD":
        return
    for word in plain[:-1]:
        checksum = [one.text for one in given.get("--checksum", ())]
        if word.unknown:
            state.say(word.line, f"ADD {word.text}: {word.unknown} has no value.", "Write the source out.")
        elif re.search(r"\.git(#|$)|^git@|^git://", word.text):
            if not _GIT_COMMIT.fullmatch(word.text):
                state.say(
                    word.line, f"ADD {word.text} takes a branch, which can move.", "Write URL#COMMIT, all 40 digits."
                )
        elif "://" in word.text and not any(map(_CHECKSUM.fullmatch, checksum)):
            hint = "Write ADD --checksum=sha256:... URL"
            state.say(word.line, "What ADD fetches is not compared with a checksum.", hint)


def _shell(instruction: Instruction, state: _State) -> None:
    words = _exec_form(instruction.rest) or [""]
    if words[0] not in _SHELLS:
        state.say(instruction.line, f"SHELL {words[0]}: its commands cannot be checked.", "Write /bin/sh or /bin/bash.")


def _onbuild(instruction: Instruction, state: _State) -> None:
    for inner in instructions(instruction.rest):
        if handler := _INSTRUCTIONS.get(inner.name):
            handler(Instruction(inner.name, inner.rest, instruction.line), state)


_INSTRUCTIONS: Final = {
    "ARG": _arg,
    "ENV": _env,
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "SHELL": _shell,
    "ONBUILD": _onbuild,
}
_HARMLESS: Final = frozenset(
    {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)
"""They say how a container starts, and bring nothing in."""
