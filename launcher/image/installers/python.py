"""Installers of Python packages: pip, uv, pipx, and those whose locks are not pip's."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from launcher import lock
from launcher.image.installers.loose import Locked, Loose, each, name_of, options, told
from launcher.image.shellwords import Word

_EXACT: Final = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,. -]*\])?\s*={2,3}\s*[\w.!+-]+\s*(;.*)?")
_PROJECT: Final = re.compile(r"([A-Za-z0-9][\w.-]*)(\[[\w,. -]*\])?")
PIP_VALUES: Final = frozenset(
    {
        "-i",
        "--index-url",
        "--pypi-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "-t",
        "--target",
        "-d",
        "--dest",
        "-w",
        "--wheel-dir",
        "--platform",
        "--python-version",
        "--implementation",
        "--abi",
        "--root",
        "--prefix",
        "--src",
        "--upgrade-strategy",
        "-C",
        "--config-settings",
        "--global-option",
        "--no-binary",
        "--only-binary",
        "--progress-bar",
        "--root-user-action",
        "--report",
        "--cache-dir",
        "--cert",
        "--client-cert",
        "--proxy",
        "--timeout",
        "--retries",
        "--exists-action",
        "--trusted-host",
        "--log",
        "--python",
        "-p",
        "--keyring-provider",
        "--use-feature",
        "--use-deprecated",
        "--default-index",
        "--index",
        "--link-mode",
        "--index-strategy",
        "--resolution",
        "--exclude-newer",
    }
)
"""Options of pip and uv that take a value."""


def pip(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    plain, given = options(
        words[1:], PIP_VALUES | {"-r", "--requirement", "-c", "--constraint", "-e", "--editable", "--group"}
    )
    if not plain:
        return
    yield from told(plain[0], "the command of pip")
    if plain[0].text in {"install", "download", "wheel"}:
        yield from _requirements(plain[1:], given, locked)


def _requirements(plain: Sequence[Word], given: Mapping[str, Sequence[Word]], locked: Locked) -> Iterator[Loose]:
    files = [word for name in ("-r", "--requirement", "--requirements") for word in given.get(name, ())]
    constraints = [word for name in ("-c", "--constraint", "--constraints") for word in given.get(name, ())]
    bound: dict[str, str] = {}
    for word in constraints:
        bound |= locked.lock(word.text) or {}
    for word in files:
        yield from _file(word, locked, hashed="--require-hashes" in given)
    for word in plain:
        yield from _requirement(word, bound, locked)
    for name in ("-e", "--editable", "--group", "--requirements-from-script"):
        for word in given.get(name, ()):
            yield Loose(word, f"pip install {name} {word.text} pins nothing", "Take packages from the lock alone.")


def _file(word: Word, locked: Locked, *, hashed: bool) -> Iterator[Loose]:
    if word.unknown or locked.lock(word.text) is None:
        there = ", ".join(path for path, pins in locked.pins.items() if pins)
        hint = f"Install from a lock ({there}), or name the file in the config as image.lock or image.cuda_lock."
        yield Loose(word, f"pip installs from {word.text}, which is not among the locks", hint)
    elif not hashed:
        hint = f"Write: pip install --require-hashes -r {word.text}"
        yield Loose(word, f"pip install -r {word.text} does not compare hashes", hint)


def _requirement(word: Word, bound: Mapping[str, str], locked: Locked) -> Iterator[Loose]:
    hint = f"Write name==VERSION, or take it from the lock: pip install --require-hashes -r {locked.first}"
    if word.unknown:
        yield from told(word, "pip installs")
    elif (
        "://" in word.text
        or word.text.startswith(("git+", ".", "/", "file:"))
        or word.text.endswith((".whl", ".tar.gz"))
    ):
        yield Loose(word, f"pip installs {_plain(word.text)}, which is a place and no version", hint)
    elif (
        word.text
        and not _EXACT.fullmatch(word.text)
        and not ((match := _PROJECT.fullmatch(word.text)) and lock.normalised(match[1]) in bound)
    ):
        yield Loose(word, f"pip installs {word.text} without an exact version", hint)


def _plain(url: str) -> str:
    """A URL without user and password."""
    return re.sub(r"//[^/@]*@", "//", url)


def uv(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    plain, given = options(words[1:], PIP_VALUES)
    verbs = [word.text for word in plain[:2]]
    if verbs == ["pip", "sync"]:
        _, exact = options(words[1:], PIP_VALUES)
        for word in plain[2:]:
            yield from _file(word, locked, hashed="--require-hashes" in exact)
    elif verbs[:1] == ["pip"]:
        yield from pip(words[words.index(plain[0]) :], locked)
    elif verbs == ["tool", "run"] or verbs in (["tool", "install"], ["tool", "upgrade"]):
        yield from _tool(plain[2:3])
    elif verbs == ["python", "install"]:
        yield from each(
            plain[2:], re.compile(r"(cpython@)?\d+\.\d+\.\d+"), "uv installs Python", "Write all three numbers: 3.11.9."
        )
    elif verbs[:1] in (["sync"], ["add"], ["lock"]) or (verbs[:1] == ["run"] and "--no-sync" not in given):
        yield from foreign(words, locked)


def uvx(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    yield from _tool(options(words[1:], PIP_VALUES | {"--from", "--with"})[0][:1])


def pipx(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    plain, given = options(words[1:], PIP_VALUES | {"--spec", "--pip-args", "--suffix"})
    verb = plain[0].text if plain else ""
    if verb in {"install", "inject", "run"}:
        first = 2 if verb == "inject" else 1
        last = first + 1 if verb == "run" else None
        for word in given.get("--spec") or plain[first:last]:
            yield from _requirement(word, {}, locked)
    elif verb in {"upgrade", "upgrade-all", "reinstall", "reinstall-all", "install-all"}:
        yield Loose(words[0], f"pipx {verb} takes whatever is newest", "Install each with name==VERSION.")


def _tool(words: Sequence[Word]) -> Iterator[Loose]:
    yield from each(words, re.compile(r"[\w.-]+(@\d[\w.]*|==[\w.!+]+)"), "uv runs", "Write name@VERSION.")


def foreign(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    """An installer with locks of its own, which nothing here can compare with what is installed."""
    plain, _ = options(words[1:], frozenset())
    if name_of(words) == "easy_install" or {word.text for word in plain[:2]} & {
        "install",
        "add",
        "sync",
        "update",
        "create",
        "run",
        "lock",
    }:
        hint = f"Install what is locked by pip: pip install --require-hashes -r {locked.first}"
        yield Loose(words[0], f"{name_of(words)} installs what cannot be compared with the lock", hint)
