"""Where what a run has loaded comes from: its environment, the standard library, its code. Imports the standard library only."""

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

from jobs.errors import Refused

OWN: Final = frozenset({"jobs", "launcher"})
"""Packages of the code that may be installed in the environment as well: the code's are used."""
NEVER_IMPORTED: Final = frozenset({"test", "tests", "docs", "examples", "scripts", "setup", "conftest"})
"""Names beside the code that no library imports: only once one of them is loaded does it matter what it hides."""
PACKAGES: Final = ("site-packages", "dist-packages")
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Places:
    """Folders that a module of a run may come from."""

    environment: tuple[str, ...]
    standard: tuple[str, ...]
    """Of the interpreter that the environment was made from; packages that are installed below it do not belong to it."""
    code: tuple[str, ...]
    """The folder that `jobs` lies in."""
    declared: tuple[str, ...] = ()
    """Folders that the environment's own .pth files name, as an editable install does: they may be there, and nothing may come
    from them. Their packages, where one environment stands on another, belong to `environment`."""

    @classmethod
    def own(cls) -> "Places":
        """Of this process, by their names and by their real ones: either can stand in a module."""
        dynamic = sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix})
        archive = os.path.join(sys.base_prefix, sys.platlibdir, "python{}{}.zip".format(*sys.version_info))  # noqa: PTH118
        declared = _declared(sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
        layers = [folder for folder in declared if Path(folder).name in PACKAGES]
        return cls(
            environment=_both(sys.prefix, *layers),
            standard=_both(sysconfig.get_path("stdlib"), dynamic, archive),
            code=_both(str(Path(__file__).parents[1])),
            declared=_both(*declared),
        )

    def name(self, path: str) -> str | None:
        """`environment`, `standard` or `code`; None for another place."""
        if _below(path, self.environment):
            return "environment"
        if _below(path, self.standard) and not set(PACKAGES) & set(Path(path).parts):
            return "standard"
        return "code" if _below(path, self.code) else None


def check() -> None:
    """Raises Refused with everything that was, or could be, loaded from elsewhere. Called when a run's libraries are loaded; some
    milliseconds."""
    places = Places.own()
    found = [*path_entries(sys.path, places), *modules(sys.modules, places), *beside(places)]
    if found:
        more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise Refused("\n    ".join(["what is loaded is not what is pinned.", *found[:SHOWN], *more]))


def path_entries(path: Sequence[str], places: Places) -> Iterator[str]:
    """Entries of sys.path from which a later import could take anything."""
    for entry in path:
        if entry.endswith(
            ".__path_hook__"
        ):  # no folder: an editable install's finder, whose modules are checked as all are
            continue
        full = os.path.abspath(entry)  # noqa: PTH100 - "" is the folder that the process is in
        if full in places.declared and full not in _leaked("PYTHONPATH"):
            continue
        if places.name(full) is None or (places.name(full) == "code" and full not in places.code):
            yield f"sys.path has {entry or full}: {_why(full)}"


def _why(entry: str) -> str:
    if entry in _leaked("PYTHONPATH"):
        return "it comes from PYTHONPATH. Unset that."
    if "site-packages" in entry or "dist-packages" in entry:
        return "packages outside of the environment. Set PYTHONNOUSERSITE=1, and make the environment without the system's."
    if entry == str(Path.cwd()):
        return "the folder that the run was started in. Start it in that of its code, or with python -P."
    return "neither the environment nor the run's code."


def modules(loaded: Mapping[str, ModuleType], places: Places) -> Iterator[str]:
    """Modules that were loaded from elsewhere, or hide one of the environment."""
    for name, module in list(loaded.items()):
        origin = _origin(module)
        if origin is None:
            continue
        place = places.name(origin)
        if place is None:
            place = places.name(os.path.realpath(origin))
        if place is None:
            yield f"{name} is loaded from {origin}, outside of the environment {sys.prefix}."
        elif place == "code" and "." not in name and name not in OWN and name != "__main__":
            yield from _hidden(name, origin, places)


def beside(places: Places) -> Iterator[str]:
    """Modules beside the code that are not loaded yet, and would be in the place of one of the environment."""
    for entry in sorted(os.scandir(places.code[0]), key=lambda one: one.name):
        name, dot, ending = entry.name.partition(".")
        is_module = (dot and ending == "py") or (not dot and os.path.exists(os.path.join(entry.path, "__init__.py")))  # noqa: PTH110, PTH118
        if is_module and name.isidentifier() and name not in {*OWN, *NEVER_IMPORTED, *sys.modules}:
            yield from _hidden(name, entry.path, places)


def _hidden(name: str, origin: str, places: Places) -> Iterator[str]:
    """What a module of the code hides: none of the environment may have its name."""
    rest = [entry for entry in sys.path if places.name(entry) in {"environment", "standard"}]
    other = PathFinder.find_spec(name, rest)
    # A folder without __init__.py is no package of its own, and hidden by any that is one.
    there = other is not None and other.origin is not None
    if there or name in sys.stdlib_module_names:
        of = other.origin if other and there else "the standard library"
        yield f"{origin} hides {name} of {of}. Rename it, and launch the commit that has the new name."


def _origin(module: object) -> str | None:
    """The file of a module, or the folder of a namespace; None for one that lies in no file."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return None
    if getattr(spec, "has_location", False) and isinstance(spec.origin, str):
        return os.path.abspath(spec.origin)  # noqa: PTH100 - not to follow links
    if spec.origin is None and spec.submodule_search_locations:
        return next((os.path.abspath(one) for one in spec.submodule_search_locations), None)  # noqa: PTH100
    return None


def _declared(*folders: str) -> list[str]:
    """What the .pth files of these folders add to sys.path, as `site` reads them."""
    found: list[str] = []
    for file in {path for folder in folders for path in Path(folder).glob("*.pth")}:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.rstrip() for line in lines if line.strip() and not line.startswith(("#", "import ", "import\t"))]
        found += [os.path.abspath(file.parent / line) for line in named]  # noqa: PTH100 - not to follow links
    return found


def _leaked(variable: str) -> set[str]:
    return {os.path.abspath(one) for one in os.environ.get(variable, "").split(os.pathsep) if one}  # noqa: PTH100


def _both(*paths: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*paths, *map(os.path.realpath, paths)]))


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}{os.sep}") for folder in folders)
