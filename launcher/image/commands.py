"""Commands of a recipe: which of them bring in what is not pinned, however they are wrapped."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from launcher import lock
from launcher.errors import Problem
from launcher.image.fetched import cut, download, git, installs
from launcher.image.installers import RULES
from launcher.image.installers.loose import Locked, Loose, name_of, options
from launcher.image.shell import parse
from launcher.image.shellwords import Command, NotUnderstoodError, Word

SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"})
# fmt: off
WRAPPERS: Final = frozenset({
    "sudo", "doas", "env", "nice", "ionice", "nohup", "time", "timeout", "exec", "command", "builtin", "xargs",
    "parallel", "stdbuf", "setarch", "fakeroot", "chroot", "find", "unshare", "setpriv", "gosu", "su-exec", "retry",
    "script", "flock", "su", "runuser", "busybox", "conda", "mamba", "micromamba", "uv", "poetry",
})
# fmt: on
"""Programs that run what their arguments name."""
READS_NAMES: Final = frozenset({"xargs", "parallel"})
PYTHON: Final = re.compile(r"(python|pypy)[\d.]*")
PIP: Final = re.compile(r"pip[\d.]+")
LANGUAGES: Final = re.compile(r"(python|pypy|perl|ruby|node|Rscript|R|lua|php)[\d.]*")
SNAPSHOT: Final = re.compile(r"\bsnapshot\.(debian\.org/archive|ubuntu\.com/ubuntu)\S*/\d{8}T\d{6}Z")
PASSWORD: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@$]*:[^/\s@$]+@")
SECRET: Final = (
    "A user and a password stand in the recipe.",
    "Set it in the site's profile (build: ...), which no image and no record holds.",
)
HINT: Final = "Write it as a command of the recipe itself, with exact versions."


def check(text: str, line: int, values: Mapping[str, str | None], locked: Locked, path: str) -> list[Problem]:
    """All that a script brings in without an exact version, as `path:line`. `line`: number of its first."""
    try:
        commands = parse(text, line, values, lambda inner: evaluate(inner, locked))
    except NotUnderstoodError as error:
        return [Problem(f"The script cannot be followed: {error}.", f"{path}:{error.line}", HINT)]
    return [*_check(commands, values, locked, path)]


def sets_snapshot(text: str) -> bool:
    """Whether a text points the system's package archive to a moment: it names one, and writes it somewhere."""
    return SNAPSHOT.search(text) is not None and re.search(r">|<<|\b(sed|tee)\b", text) is not None


def evaluate(commands: Sequence[Command], locked: Locked) -> str | None:
    """What `$(grep -o '^NAME==...' LOCK)` prints, also with `|| true`: the pin of that package. None for other commands."""
    if len(commands) == 2 and [word.text for word in commands[1].words] in (["true"], [":"]):  # noqa: PLR2004 - grep and true
        commands = commands[:1]
    if len(commands) != 1 or name_of(commands[0].words) not in {"grep", "egrep"} or commands[0].stdin:
        return None
    plain, given = options(commands[0].words[1:], frozenset({"-m", "-e", "--max-count", "--regexp"}))
    arguments = [*given.get("-e", ()), *given.get("--regexp", ()), *plain]
    only = any(re.fullmatch(r"-[A-Za-z]*o[A-Za-z]*|--only-matching", name) for name in given)
    if len(arguments) != 2 or not only or any(word.unknown for word in arguments):  # noqa: PLR2004 - pattern and file
        return None
    wanted = re.match(r"\^([\w.-]+)==[^|]*$", arguments[0].text)
    pins = locked.lock(arguments[1].text)
    if wanted is None or not pins:
        return None
    name = lock.normalised(wanted[1])
    return f"{name}=={pins[name]}" if name in pins else ""


def _check(
    commands: Sequence[Command], values: Mapping[str, str | None], locked: Locked, path: str
) -> Iterator[Problem]:
    for index, command in enumerate(commands):
        if any(SNAPSHOT.search(word.text) for word in _texts(command)) and _sets_sources(command):
            locked = replace(locked, snapshot=True)
        for word in _texts(command):
            if PASSWORD.search(word.text):
                yield Problem(SECRET[0], f"{path}:{word.line}", SECRET[1])
        yield from _command(command, commands[index + 1 :], values, locked, path)


def _texts(command: Command) -> list[Word]:
    return [*command.words, *([command.stdin] if command.stdin else [])]


def _sets_sources(command: Command) -> bool:
    """Whether it writes a file: an echo alone changes no archive."""
    return command.writes or bool(command.words and name_of(command.words) in {"sed", "tee"}) or command.pipes


def _command(
    command: Command, later: Sequence[Command], values: Mapping[str, str | None], locked: Locked, path: str
) -> Iterator[Problem]:
    """What one command does, by itself or through what it runs."""
    words = _without_assignments(command.words)
    if not words:
        if command.stdin is not None:
            yield from check(command.stdin.text, command.stdin.line, values, locked, path)
        return
    name = name_of(words)
    if words[0].unknown and ("$" in name or "`" in name):
        what = f"What `{cut(words[0].text)}` runs cannot be told without running it."
        yield Problem(what, f"{path}:{words[0].line}", HINT)
        return
    if name == "cd" or (name == "echo" and not command.writes and not command.pipes):
        return
    if name in SHELLS or name in {"eval", ".", "source"} or _script_option(name, words):
        yield from _shell(name, words, command, values, locked, path)
        return
    if found := locked.file(words[0].text) if "/" in words[0].text else None:
        yield from _script(*found, locked)
        return
    if PYTHON.fullmatch(name) and (module := _module(words)):
        yield from _command(replace(command, words=module), later, values, locked, path)
        return
    loose = list(_loose(name, words, command, later, locked))
    yield from (Problem(f"{one.what}.", f"{path}:{one.word.line}", one.hint) for one in loose)
    if name in WRAPPERS and not loose and (inner := _wrapped(words)):
        if name in READS_NAMES and PIP.sub("pip", name_of(inner)) in RULES:
            what = f"{name} takes what {name_of(inner)} installs from its input."
            yield Problem(what, f"{path}:{inner[0].line}", HINT)
        else:
            yield from _command(replace(command, words=inner), later, values, locked, path)


def _loose(
    name: str, words: Sequence[Word], command: Command, later: Sequence[Command], locked: Locked
) -> Iterator[Loose]:
    rule = RULES.get("pip" if PIP.fullmatch(name) else name)
    if rule is not None:
        yield from rule(words, locked)
    elif name in {"curl", "wget", "aria2c"}:
        yield from download(words, command, later)
    elif name == "git":
        yield from git(words, later)
    elif LANGUAGES.fullmatch(name):
        yield from _program(name, words, command, locked)
    elif command.writes or command.pipes:
        yield from (_text(word, "A text that is written here") for word in _texts(command)[1:] if installs(word.text))


def _without_assignments(words: Sequence[Word]) -> list[Word]:
    first = next((i for i, word in enumerate(words) if not re.match(r"[A-Za-z_]\w*\+?=", word.text)), len(words))
    return list(words[first:])


def _wrapped(words: Sequence[Word]) -> list[Word] | None:
    """The command within a wrapper's arguments: from the first word that names a program which is looked at here."""
    for index, word in enumerate(words[1:], start=1):
        name = name_of([word])
        known = name in RULES or name in SHELLS or name in WRAPPERS or name in {"curl", "wget", "git"}
        if known or PIP.fullmatch(name) or LANGUAGES.fullmatch(name):
            return list(words[index:])
    return None


def _module(words: Sequence[Word]) -> list[Word] | None:
    """`python -I -m pip ...` as `pip ...`; None where no module that is looked at runs."""
    for index, word in enumerate(words[1:-1], start=1):
        if word.text == "-c" or not word.text.startswith("-"):
            return None
        if re.fullmatch(r"-[A-Za-z]*m", word.text):
            return list(words[index + 1 :])
    return None


def _script_option(name: str, words: Sequence[Word]) -> bool:
    return name in {"su", "runuser", "script", "flock"} and any(word.text in {"-c", "--command"} for word in words)


def _shell(
    name: str, words: Sequence[Word], command: Command, values: Mapping[str, str | None], locked: Locked, path: str
) -> Iterator[Problem]:
    """A shell, by its `-c`, its file, or its input."""
    if name == "eval":
        text = Word(" ".join(word.text for word in words[1:]), words[0].line, "".join(w.unknown for w in words[1:]))
        yield from _text_of_shell(text, values, locked, path)
        return
    rest = list(words[1:])
    if name in {".", "source"}:
        found = locked.file(rest[0].text) if rest else None
        yield from _script(*found, locked) if found else ()
        return
    while (rest and rest[0].text.startswith(("-", "+"))) or (rest and name in {"su", "runuser", "script", "flock"}):
        option = rest.pop(0)
        if re.fullmatch(r"-[A-Za-z]*c|--command", option.text) and rest:
            yield from _text_of_shell(rest[0], values, locked, path)
            return
        if re.fullmatch(r"[-+][A-Za-z]*[oO]", option.text) and rest:
            rest.pop(0)
    if rest and rest[0].text != "-":
        found = locked.file(rest[0].text)
        yield from _script(*found, locked) if found else ()
        if rest[0].unknown:
            what = f"What {name} runs cannot be told: {cut(rest[0].unknown)}."
            yield Problem(what, f"{path}:{rest[0].line}", HINT)
    elif command.stdin is not None:
        yield from _text_of_shell(command.stdin, values, locked, path)
    elif command.piped:
        what = f"{name} runs what another command writes, which cannot be told."
        yield Problem(what, f"{path}:{words[0].line}", HINT)


def _text_of_shell(word: Word, values: Mapping[str, str | None], locked: Locked, path: str) -> Iterator[Problem]:
    if word.unknown:
        what = f"What a shell runs here cannot be told: {cut(word.unknown)}."
        yield Problem(
            what,
            f"{path}:{word.line}",
            "Quote it with ', and set the variable in the recipe. Or write it as a command.",
        )
    else:
        yield from check(word.text, word.line, values, locked, path)


def _script(path: str, text: str, locked: Locked) -> Iterator[Problem]:
    """A file of the commit that the recipe runs."""
    first = text.partition("\n")[0]
    if first.startswith("#!") and not any(PurePosixPath(word).name in SHELLS for word in first[2:].split()):
        yield from _other(path, text)
    else:
        yield from check(text, 1, {}, locked, path)


def _other(path: str, text: str) -> Iterator[Problem]:
    """A program of another language."""
    for number, line in enumerate(text.splitlines(), start=1):
        if installs(line):
            yield Problem(f"A program that the recipe runs brings something in: {cut(line)}.", f"{path}:{number}", HINT)


def _program(name: str, words: Sequence[Word], command: Command, locked: Locked) -> Iterator[Loose]:
    """An interpreter of another language: its text is searched, not read."""
    for word in _texts(command)[1:]:
        found = locked.file(word.text) if word.text and " " not in word.text and word.text != "-" else None
        if found and found[0] not in locked.pins and any(map(installs, found[1].splitlines())):
            yield Loose(word, f"{found[0]}, which {name} runs, brings something in", HINT)
        elif installs(word.text):
            yield _text(word, f"A program of {name}")
    if command.piped and not command.stdin and len(words) == 1:
        yield Loose(words[0], f"{name} runs what another command writes, which cannot be told", HINT)
    if any(word.text.endswith("setup.py") for word in words) and {"install", "develop"} & {w.text for w in words}:
        yield Loose(words[0], "setup.py install takes whatever is newest of what it needs", HINT)


def _text(word: Word, of: str) -> Loose:
    line = next((line for line in word.text.splitlines() if installs(line)), word.text)
    return Loose(word, f"{of} brings something in: {cut(line)}", HINT)
