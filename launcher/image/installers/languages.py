"""Installers of other languages' packages: npm and its kin, go, cargo, gem."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from launcher.image.installers.loose import Locked, Loose, each, name_of, options
from launcher.image.shellwords import Word

_VERSION: Final = re.compile(r"v?\d+(\.\d+){1,3}([-+.][0-9A-Za-z.+-]+)?")


def npm(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    plain, given = options(words[1:], frozenset({"--prefix", "--registry", "-C", "--cwd", "--dir"}))
    name, verb = name_of(words), plain[0].text if plain else ""
    if verb == "ci" or {"--frozen-lockfile", "--immutable"} & given.keys():
        if not any(
            locked.file(one) for one in ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml")
        ):
            yield Loose(words[0], f"{name} {verb} needs its lock, which is not among image.files", "Add it there.")
    elif verb in {"install", "i", "add", "global", "update", "upgrade", "up", "exec", "x", "dlx"} or (
        name == "yarn" and not verb
    ):
        packages = plain[2:] if verb == "global" else plain[1:]
        if not packages or verb in {"update", "upgrade", "up"}:
            yield Loose(
                words[0], f"{name} {verb or 'install'} takes what package.json leaves open", f"Write: {name} ci"
            )
        else:
            yield from _node(packages[:1] if verb in {"exec", "x", "dlx"} else packages, name)


def npx(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    plain, given = options(words[1:], frozenset({"-p", "--package"}))
    yield from _node([*given.get("-p", ()), *given.get("--package", ())] or plain[:1], "npx")


def _node(words: Sequence[Word], name: str) -> Iterator[Loose]:
    yield from each(
        words, re.compile(rf"(@[\w.-]+/)?[\w.-]+@{_VERSION.pattern}"), f"{name} installs", "Write name@1.2.3."
    )


def go(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    plain, _ = options(words[1:], frozenset({"-tags", "-ldflags", "-o"}))
    if plain and plain[0].text in {"install", "get", "run"}:
        modules = [word for word in plain[1:] if not word.text.startswith(".") or word.unknown]
        yield from each(modules, re.compile(r"[^@\s]+@v\d[\w.+-]*"), "go installs", "Write module@v1.2.3.")


def cargo(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    plain, given = options(
        words[1:], frozenset({"--version", "--vers", "--root", "--git", "--rev", "--features", "-F"})
    )
    if plain and plain[0].text == "install":
        exact = [*given.get("--version", ()), *given.get("--vers", ())]
        if "--locked" not in given or not all(_VERSION.fullmatch(one.text) for one in exact) or not exact:
            yield Loose(
                words[0],
                "cargo installs without --locked and --version",
                "Write: cargo install --locked --version 1.2.3 NAME",
            )


def gem(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    plain, given = options(words[1:], frozenset({"-v", "--version"}))
    exact = [*given.get("-v", ()), *given.get("--version", ())]
    if (
        plain
        and plain[0].text in {"install", "update"}
        and not (exact and all(_VERSION.fullmatch(one.text) for one in exact))
    ):
        yield Loose(words[0], "gem installs without an exact version", "Write: gem install NAME -v 1.2.3")
