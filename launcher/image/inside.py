"""What is inside of an environment: a program that looks, run in the image, and whether what it saw is what is locked (R10, R26).

Standard library only: what looks must run in any image that has a Python."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from launcher import lock
from launcher.errors import Problem

OLDEST_PYTHON: Final = (3, 11)
TOOLS: Final = frozenset({"pip", "setuptools", "wheel"})
"""What a base or a new virtual environment may bring beside the lock: they install, and no run imports them."""
SHOWN: Final = 10
"""Lines of differences in one message."""

INSPECT: Final = '''
import importlib, importlib.metadata, importlib.util, json, os, runpy, sys, sysconfig, time

def build():
    """What torch was built for, from its version.py: without importing it."""
    try:
        spec = importlib.util.find_spec("torch")
        if spec is None or not spec.origin:
            return None
        found = runpy.run_path(os.path.join(os.path.dirname(spec.origin), "version.py"))
    except Exception as error:
        return {"version": None, "cuda": None, "error": f"{type(error).__name__}: {error}"}
    return {"version": str(found.get("__version__")), "cuda": found.get("cuda") or None, "error": None}

def imports(names):
    """Why each module cannot be imported (None: it can), and the seconds it took."""
    for name in names:
        began, error = time.monotonic(), None
        try:
            importlib.import_module(name)
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"
        yield name, {"error": error, "seconds": round(time.monotonic() - began, 3)}

print("\\n" + json.dumps({
    "python": ".".join(map(str, sys.version_info[:3])),
    "executable": sys.executable,
    "prefix": sys.prefix,
    "base_prefix": sys.base_prefix,
    "standard_library": sorted({
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}),
        os.path.join(sys.base_prefix, sys.platlibdir, "python%d%d.zip" % sys.version_info[:2]),
    }),
    "path": sys.path,
    "packages": sorted(
        [d.name, d.version or "", str(d.locate_file(""))] for d in importlib.metadata.distributions() if d.name
    ),
    "torch": build(),
    "pip": importlib.util.find_spec("pip") is not None,
    "imports": dict(imports(sys.argv[1:])),
}))
'''
"""Run as `python -I -c INSPECT MODULE...`; the last line of its output is one JSON object:

    python, executable, prefix, base_prefix   of the interpreter
    standard_library   its folders
    path               sys.path
    packages           [name, version, folder] of each distribution, also of one that is there twice
    torch              null without torch, else {version, cuda (null: built without), error}
    pip                whether pip can be imported
    imports            of each MODULE: {error (null: it can be imported), seconds}

Importing torch costs seconds (1 to 3 on a warm disk): ask for it once, when the environment is made."""


def arguments(modules: Sequence[str] = ()) -> tuple[str, ...]:
    """What follows the interpreter: `("-I", "-c", INSPECT, *modules)`."""
    return ("-I", "-c", INSPECT, *modules)


def read_report(output: str) -> dict[str, Any]:
    """The report, from all that the program wrote: a library may have spoken before it. Raises ValueError."""
    last = output.strip().rpartition("\n")[2]
    report = json.loads(last)
    if not isinstance(report, dict) or "packages" not in report:
        raise ValueError("the last line is no report")
    return report


def freeze(report: Mapping[str, Any]) -> list[str]:
    """Every package as `name==version`, sorted, pip itself among them."""
    return sorted(f"{lock.normalised(name)}=={version}" for name, version, _ in report["packages"])


def check_inside(report: Mapping[str, Any], locks: Mapping[str, str], where: str = "the image") -> list[Problem]:
    """How an environment differs from what is locked; empty when it does not.

    `locks`: path and text of each lock, in order: the first is installed always, every further one where torch is built for CUDA.
    `where`: what the report is of, for the messages. One problem per kind, each with both sides and the next command."""
    return [
        *_python(report, where),
        *_packages(report, locks, where),
        *_places(report, where),
        *_imports(report, where),
    ]


def _python(report: Mapping[str, Any], where: str) -> Iterator[Problem]:
    found = report["python"]
    if tuple(map(int, found.split(".")[:2])) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        hint = "Take a base with a newer one: ARG BASE in the recipe, or image.base in the config."
        yield Problem(f"Python is {found} ({report['executable']}); a run needs {oldest} at least.", where, hint)


def _packages(report: Mapping[str, Any], locks: Mapping[str, str], where: str) -> Iterator[Problem]:
    """`pip freeze` is the lock: nothing missing, nothing in another version, nothing twice, nothing else."""
    torch = report["torch"]
    if torch is not None and torch["error"]:
        yield Problem(f"torch's build cannot be read: {torch['error']}.", where)
    cuda = torch is not None and torch["cuda"] is not None
    used = [name for index, name in enumerate(locks) if index == 0 or cuda]
    wanted: dict[str, str] = {}
    for name in used:
        wanted |= lock.pins(locks[name], name)[0]
    there: dict[str, str] = {}
    lines = []
    for name, version, folder in report["packages"]:
        normal = lock.normalised(name)
        if normal in there:
            lines.append(f"{normal} is installed twice: {there[normal]}, and {version} in {folder}")
        there[normal] = version
    lines += lock.differences(wanted, there)
    lines += [
        f"{name}=={there[name]} is installed, {_not_locked(name, used, locks)}"
        for name in sorted(there.keys() - wanted.keys() - TOOLS)
    ]
    if lines:
        built = (
            f"torch {torch['version']} is built {'for CUDA ' + torch['cuda'] if cuda else 'without CUDA'}; "
            if torch
            else ""
        )
        hint = f"Install what is locked and nothing else: python -m pip install --require-hashes --no-deps -r {used[0]}"
        yield Problem(
            f"What is installed is not what is locked ({built}compared with {' and '.join(used)}).",
            where,
            f"{_shown(lines)}\n{hint}\nOr write the lock anew: make lock",
        )


def _not_locked(name: str, used: Sequence[str], locks: Mapping[str, str]) -> str:
    for other in locks.keys() - set(used):
        if name in lock.pins(locks[other], other)[0]:
            return f"which {other} pins, but torch is built without CUDA"
    return "and not locked"


def _places(report: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """All that can be imported lies in the environment."""
    prefix, standard = report["prefix"], report["standard_library"]
    outside = [f"sys.path: {entry}" for entry in report["path"] if not is_inside(entry, [prefix], standard)] + [
        f"{name}=={version}: {folder}"
        for name, version, folder in report["packages"]
        if not is_inside(folder, [prefix], [])
    ]
    if outside:
        what = f"Packages can be imported from outside of the environment {prefix}."
        hint = (
            f"{_shown(outside)}\nMake it without the system's packages: python -m venv, without --system-site-packages."
        )
        yield Problem(what, where, hint)


def _imports(report: Mapping[str, Any], where: str) -> Iterator[Problem]:
    for name, found in report["imports"].items():
        if found["error"] is None:
            continue
        hint = "A library that it needs is neither in the base nor in a lock."
        if name == "torch" and report["torch"] is not None and report["torch"]["cuda"]:
            hint = "CUDA's wheels are in the second lock: python -m pip install --require-hashes --no-deps -r CUDA_LOCK"
        yield Problem(f"`import {name}` fails: {found['error']}.", where, hint)


def is_inside(path: str, environment: Iterable[str], standard: Iterable[str]) -> bool:
    """Whether a path lies in one of the environment's folders, or in the standard library but not in packages that lie below it."""
    this = PurePosixPath(path)
    if any(this.is_relative_to(folder) for folder in environment):
        return True
    return any(
        this.is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(this.relative_to(folder).parts)
        for folder in standard
    )


def _shown(lines: Sequence[str]) -> str:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([*lines[:SHOWN], *more])
