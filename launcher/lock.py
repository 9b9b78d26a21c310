"""requirements.lock: what it pins, what is wrong with it, and how what is installed differs (R10, R26). Standard library only."""

import re
from importlib import metadata

from launcher.errors import Problem

_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[^\s;\\*]+)(\s*;(?P<marker>[^\\]*))?"
)


def pins(text: str, where: str) -> tuple[dict[str, str], list[Problem]]:
    """Normalised name and version of each package, and every line that pins none."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "--hash")):
            continue
        match = _PIN.match(stripped)
        if match is None:
            name = re.split(r"[\s<>=!~;\\\[]", stripped, maxsplit=1)[0] or stripped
            hint = "Write the lock anew: make lock"
            problems.append(Problem(f"{name} is not pinned with `==`.", f"{where}:{number}", hint))
        else:
            found[normalised(match["name"])] = match["version"]
    if not found and not problems:
        problems.append(Problem("The lock pins nothing.", where, "Write it: make lock"))
    return found, problems


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
