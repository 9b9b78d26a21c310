"""Recipes of environments, Dockerfile and Apptainer definition: their base, and whether everything in them is pinned."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from launcher import lock
from launcher.errors import Problem

DIGEST: Final = re.compile(r"^[^@\s]+@sha256:[0-9a-f]{64}$")


def check(
    build: str, path: str, texts: Mapping[str, bytes], base: str | None, *, locks: Sequence[str]
) -> tuple[str, list[Problem]]:
    """The base that is used, and everything that is not pinned, as file:line. `base` is the config's, if it names one."""
    recipe = texts[path].decode(errors="replace")
    problems: list[Problem] = []
    own = re.search(r"^\s*(?:ARG\s+)?BASE=\"?([^\s\"]+)", recipe, re.MULTILINE)
    used = base or (own[1] if own else "")
    if not DIGEST.match(used):
        hint = "Write ARG BASE=name@sha256:... into it, or image.base into the config."
        problems.append(Problem("The base is not pinned by a digest.", path, hint))
    for name in locks:
        if name in texts:
            problems += lock.pins(texts[name].decode(errors="replace"), name)[1]
    return used, problems
