"""Recipes of environments, Dockerfile and Apptainer definition: their base, and whether everything in them is pinned."""

from collections.abc import Mapping, Sequence

from launcher import lock
from launcher.errors import Problem
from launcher.image import definition, dockerfile
from launcher.image.installers.loose import Locked


def check(
    build: str, path: str, texts: Mapping[str, bytes], base: str | None, *, locks: Sequence[str]
) -> tuple[str, list[Problem]]:
    """The base that is used, and everything that is not pinned, as file:line, in the order of the files (R10, R12, R26).

    `build`: `dockerfile` or `definition`. `path`: of the recipe, one of `texts`, which are all files that it can copy. `base`: the
    config's, if it names one. `locks`: those of `texts` that are locks; other names are passed over."""
    read = {name: data.decode(errors="replace") for name, data in texts.items()}
    pins: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    for name in locks:
        if name in read:
            pins[name], wrong = lock.pins(read[name], name)
            problems += wrong or lock.unhashed(read[name], name)
    given = arguments(base, *locks)
    for name in ("LOCK", "CUDA_LOCK"):
        pins.setdefault(given[name], {})  # a recipe may install a second lock where there is one
    locked = Locked(pins, {name: text for name, text in read.items() if name != path and name not in pins})
    language = dockerfile if build == "dockerfile" else definition
    used, wrong = language.check(path, read[path], given, locked)
    return used, [*_sorted(wrong), *problems]


def arguments(base: str | None, lock: str, cuda_lock: str = "") -> dict[str, str]:
    """What a build sets of a recipe's arguments, beside their defaults: the names and what stands for them here."""
    return {**({"BASE": base} if base else {}), "LOCK": lock, "CUDA_LOCK": cuda_lock or "CUDA_LOCK"}


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    """By their line, each once: a script that two commands run is looked at twice."""

    def place(problem: Problem) -> tuple[str, int]:
        path, _, line = problem.where.rpartition(":")
        return path, int(line) if line.isdecimal() else 0

    return sorted(dict.fromkeys(problems), key=place)
