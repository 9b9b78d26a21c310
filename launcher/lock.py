"""requirements.lock: what it pins, what is wrong with it, and how what is installed differs (R10, R26). Standard library only."""

import re
from importlib import metadata

from launcher.errors import Problem

_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*===?\s*(?P<version>[A-Za-z0-9.!+_-]+)\s*(;(?P<marker>[^\\#]*?))?"
    r"(\s--hash=\S+|\s#.*|\s*\\)*"
)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?![0-9a-f])")
_AGAIN = "Write the lock anew: make lock"


def pins(text: str, where: str) -> tuple[dict[str, str], list[Problem]]:
    """Normalised name and version of each package, and every line that pins none."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "--hash=")):
            continue
        match = _PIN.fullmatch(stripped)
        name = normalised(match["name"]) if match else ""
        if match is None:
            problems.append(Problem(_unpinned(stripped), f"{where}:{number}", _AGAIN))
        elif found.setdefault(name, match["version"]) != match["version"]:
            what = f"{name} is pinned twice: {found[name]} and {match['version']}."
            problems.append(Problem(what, f"{where}:{number}", _AGAIN))
    if not found and not problems:
        problems.append(Problem("The lock pins nothing.", where, "Write it: make lock"))
    return found, problems


def _unpinned(line: str) -> str:
    """What is wrong with a line that pins nothing."""
    name = re.split(r"[\s<>=!~;@\\\[]", line, maxsplit=1)[0] or line
    if line.startswith(("-e", "--editable", "./", "../", "/")):
        return "An editable install or a folder is no version."
    if line.startswith("-"):
        return f"{name} is an option: a lock holds packages and their hashes, the rest is the site's."
    if "://" in line or " @ " in line:
        return (
            f"{name.partition('://')[0] if '://' in name else name} is a URL, which can hold something else tomorrow."
        )
    return f"{name} is not pinned with `==`."


def unhashed(text: str, where: str) -> list[Problem]:
    """Every package of a lock that no hash stands with: its file could be another one tomorrow."""
    problems: list[Problem] = []
    last: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        match = _PIN.fullmatch(line.strip())
        if match is not None:
            problems += _no_hash(last, where)
            last = (number, match["name"])
        if _HASH.search(line):
            last = None
    return [*problems, *_no_hash(last, where)]


def _no_hash(last: tuple[int, str] | None, where: str) -> list[Problem]:
    if last is None:
        return []
    return [Problem(f"{last[1]} has no hash.", f"{where}:{last[0]}", f"{_AGAIN}, or: uv pip compile --generate-hashes")]


def normalised(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Normalised name and version of every distribution that this interpreter finds."""
    return {normalised(found.name): found.version for found in metadata.distributions() if found.name}


def differences(wanted: dict[str, str], there: dict[str, str]) -> list[str]:
    """How what is installed differs from the pins, one line each; more than is pinned may be there.

    A local version (`2.13.0+cpu`) satisfies the pin of its public one."""
    lines = []
    for name, version in sorted(wanted.items()):
        found = there.get(name)
        if found is None:
            lines.append(f"{name}=={version} is not installed")
        elif version not in (found, found.partition("+")[0]):
            lines.append(f"{name}=={version} is pinned, {found} is installed")
    return lines
