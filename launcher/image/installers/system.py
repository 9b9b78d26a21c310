"""Package managers of distributions, and conda."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from launcher.image.installers.loose import Locked, Loose, each, is_archive, name_of, options, told
from launcher.image.shellwords import Word

_CONDA: Final = re.compile(r"([\w.-]+::)?[\w.-]+(==[\w.!+]+|=[\w.!+]+=[\w.]+)")
_RPM: Final = re.compile(r"[\w.+-]+-(\d+:)?\d[\w.+~^]*-\d[\w.+~^]*")
_DEBIAN: Final = re.compile(r"[a-z0-9][a-z0-9.+-]*(:[a-z0-9]+)?=[0-9A-Za-z][\w.+~:-]*")
_ALPINE: Final = re.compile(r"[\w.+-]+=\d[\w.+-]*")


def conda(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    values = frozenset(
        {"-n", "--name", "-p", "--prefix", "-c", "--channel", "--file", "-f", "--solver", "--platform", "--subdir"}
    )
    plain, given = options(words[1:], values)
    verbs = [word.text for word in plain[:2]]
    if verbs[:1] == ["env"] and verbs[1:] in (["create"], ["update"]):
        hint = "Write an explicit list (conda list --explicit --sha256) and: conda create --file LIST"
        yield Loose(words[0], "conda env takes what an environment's file leaves open", hint)
    elif verbs[:1] in (["update"], ["upgrade"]):
        yield Loose(
            words[0], f"conda {verbs[0]} takes whatever is newest", "Write name=VERSION=BUILD with conda install."
        )
    elif verbs[:1] in (["install"], ["create"]):
        for word in [*given.get("--file", ()), *given.get("-f", ())]:
            found = locked.file(word.text)
            if word.unknown or found is None or "@EXPLICIT" not in found[1]:
                hint = "Name it among image.files, written by: conda list --explicit --sha256"
                yield Loose(word, f"conda installs from {word.text}, which is no explicit list of the commit", hint)
        yield from each(plain[1:], _CONDA, "conda installs", "Write name==VERSION or name=VERSION=BUILD.")


def apt(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    plain, given = options(
        words[1:],
        frozenset({"-o", "-t", "--option", "--target-release", "-c", "--config-file", "-a", "-S", "--snapshot"}),
    )
    verb = plain[0].text if plain else ""
    yield from told(plain[0], "the command of apt") if plain else ()
    at = locked.snapshot or any(
        re.fullmatch(r"\d{8}T\d{6}Z", word.text) for word in (*given.get("-S", ()), *given.get("--snapshot", ()))
    )
    hint = "Write package=VERSION (apt-cache policy PACKAGE), or point apt at a moment of https://snapshot.debian.org first."
    if verb in {"upgrade", "dist-upgrade", "full-upgrade", "safe-upgrade"} and not at:
        yield Loose(words[0], f"{name_of(words)} {verb} takes whatever the archive has that day", hint)
    elif verb in {"install", "reinstall", "build-dep", "source", "satisfy"}:
        for word in plain[1:]:
            if word.unknown:
                yield from told(word, f"{name_of(words)} installs")
            elif not at and not _DEBIAN.fullmatch(word.text) and not is_archive(word.text, ".deb"):
                yield Loose(word, f"{name_of(words)} installs {word.text} without an exact version", hint)


def apk(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    plain, _ = options(
        words[1:], frozenset({"-t", "--virtual", "-X", "--repository", "-p", "--root", "--arch", "--keys-dir"})
    )
    verb = plain[0].text if plain else ""
    if verb == "upgrade":
        yield Loose(words[0], "apk upgrade takes whatever the archive has that day", "Write apk add package=VERSION.")
    elif verb == "add":
        yield from each(plain[1:], _ALPINE, "apk installs", "Write package=VERSION (apk policy PACKAGE).")


def rpm(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    del locked
    values = frozenset(
        {"-c", "--config", "--enablerepo", "--disablerepo", "--repo", "--releasever", "--setopt", "-x", "--exclude"}
    )
    plain, _ = options(words[1:], values)
    verb = plain[0].text if plain else ""
    name = name_of(words)
    if verb in {"update", "upgrade", "up", "dup", "dist-upgrade", "distro-sync", "group", "groupinstall", "module"}:
        yield Loose(
            words[0], f"{name} {verb} takes whatever the archive has that day", "Write package-VERSION-RELEASE."
        )
    elif verb in {"install", "in", "reinstall"}:
        for word in plain[1:]:
            if not is_archive(word.text, ".rpm") or word.unknown:
                exact = re.compile(r"[\w.+-]+=[\w.:+~-]+") if name == "zypper" else _RPM
                yield from each([word], exact, f"{name} installs", "Write package-VERSION-RELEASE (rpm -q PACKAGE).")


def pacman(words: Sequence[Word], locked: Locked) -> Iterator[Loose]:
    """It installs what the archive has that day, and nothing else."""
    del locked
    if any(word.text.startswith(("-S", "--sync")) for word in words[1:]):
        yield Loose(
            words[0], "pacman takes whatever the archive has that day", "Start from a base that has it already."
        )
