"""What a recipe fetches by itself: downloads without a checksum, branches of git, programs of other languages that install."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from launcher.image.installers.loose import Loose, name_of, options
from launcher.image.shellwords import Command, Word

COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
CHECKS: Final = frozenset({"sha256sum", "sha512sum", "sha384sum", "shasum", "b2sum"})
INSTALLS: Final = re.compile(
    r"\b(pip3?|uv|pipx|conda|mamba|micromamba|apt|apt-get|apk|dnf|yum|npm|git)\b[\"',\s()\[\]-]+(\S+[\"',\s]+){0,3}?[\"']?"
    r"(install|add|clone|sync|create)\b|\binstall\.packages\b|\b(curl|wget)\b.*\bhttps?:|\b(urlopen|urlretrieve|snapshotdownload|"
    r"hf_hubdownload|from_pretrained|load_dataset)\b|\brequests\.get\b"
)
CUT: Final = 60


def installs(text: str) -> bool:
    """Whether a text of any language looks like one that installs or downloads."""
    return INSTALLS.search(text) is not None


def download(words: Sequence[Word], command: Command, later: Sequence[Command]) -> Iterator[Loose]:
    """What is fetched must be compared with a checksum by a later command of the same script, before anything runs it."""
    if not any("://" in word.text or word.unknown for word in words[1:]):
        return
    name = name_of(words)
    shown = next((word for word in words[1:] if "://" in word.text), words[0])
    checked = any(
        one.words and name_of(one.words) in CHECKS and {"-c", "--check"} & {word.text for word in one.words}
        for one in later
    )
    if command.pipes or not checked:
        hint = "Save it, then compare: echo 'SHA256  FILE' | sha256sum -c -. Or, in a Dockerfile: ADD --checksum=sha256:... URL."
        yield Loose(shown, f"What {name} fetches is not compared with a checksum", hint)


def git(words: Sequence[Word], later: Sequence[Command]) -> Iterator[Loose]:
    plain, given = options(
        words[1:], frozenset({"-C", "-c", "-b", "--branch", "--depth", "-o", "--origin", "--revision"})
    )
    verb = plain[0].text if plain else ""
    if verb == "pull" or (verb == "submodule" and "--remote" in given):
        yield Loose(words[0], f"git {verb} takes whatever is newest", "git checkout COMMIT, all 40 digits.")
    if verb not in {"clone", "fetch"}:
        return
    revisions = given.get("--revision", []) or (plain[2:] if verb == "fetch" else [])
    if any(COMMIT.fullmatch(word.text) for word in revisions):
        return
    for one in later:
        if one.words and name_of(one.words) == "git":
            verbs, _ = options(one.words[1:], frozenset({"-C", "-c"}))
            moves = bool(verbs) and verbs[0].text in {"checkout", "reset", "switch"}
            if moves and any(COMMIT.fullmatch(word.text) for word in verbs[1:]):
                return
    hint = "Follow it in the same script by: git -C FOLDER checkout COMMIT, all 40 digits."
    yield Loose(words[0], f"git {verb} takes a branch or a tag, which can move", hint)


def cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CUT else f"{line[:CUT]}..."
