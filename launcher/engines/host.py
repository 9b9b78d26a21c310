"""The `host` engine: the locked virtual environment that the launcher itself runs in, and the commit's files in the store.

No container: isolation is a clean environment by allow-list, no home directory, no user site-packages, and code that can only come
from the store."""

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.contract import ImagePin
from launcher import lock
from launcher.engines import Command, ImageRequest, NodeOptions, Say, Start, Workshop
from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.gittree import tree_hash
from launcher.store import Stored, code_folder, lock_path, publish_folder, size

PREFIX = "git-tree:"


def health() -> list[Problem]:
    """The launcher runs, so its interpreter does; but a run outside of a virtual environment would not be isolated."""
    if sys.prefix == sys.base_prefix:
        return [Problem("launch runs outside of a virtual environment.", sys.executable, "Make one: make setup")]
    return []


def pin(request: ImageRequest, store: Path) -> ImagePin:
    del store
    return ImagePin(
        engine="host",
        environment=f"sha256:{request.lock_sha256}",
        code=f"{PREFIX}{request.code_tree}",
        python=platform.python_version(),
    )


def ensure(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """Compare the environment with the commit's lock, and put the code and the lock into the store. Raises LaunchError."""
    from launcher.plan import Source
    from launcher.source import export, read_file

    source = Source(request.repository, request.commit, request.code_tree, None, ())
    text = read_file(source, request.lock)
    if text is None or hashlib.sha256(text).hexdigest() != request.lock_sha256:
        raise fail(ExitCode.IMAGE, "The commit's lock is not the one that was planned with.", where=request.lock)
    if problems := _environment(text.decode(errors="replace"), request.lock):
        raise LaunchError(ExitCode.IMAGE, problems)
    store = workshop.store
    wanted = pin(request, store)
    folder = _folder(store, wanted)
    if not folder.exists():
        publish_folder(store, folder, lambda scratch: export(request.repository, request.code_tree, scratch))
        say(f"code of {request.commit[:10]} -> {folder}")
    locks = _lock(store, wanted)
    if not locks.exists():
        from jobs.files import publish

        locks.parent.mkdir(parents=True, exist_ok=True)
        publish(locks, text, 0o444)
    if problems := [*_verify_code(wanted, store), *_verify_environment(wanted, store)]:
        raise LaunchError(ExitCode.IMAGE, problems)
    return wanted


def verify(pin: ImagePin, node: NodeOptions) -> list[Problem]:
    """Recompute both digests from what is there: the hash of the code's tree, and the lock against what is installed."""
    return [*_verify_code(pin, node.store), *_verify_environment(pin, node.store)]


def command(pin: ImagePin, node: NodeOptions, start: Start) -> Command:
    """The interpreter of the environment, with the code folder first and nothing else of this user's on its path.

    Mounts, network and allocation need nothing here: without a container every path is visible, and Slurm's own limits act."""
    folder = _folder(node.store, pin)
    clean = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        # Not the user's: what lies there is on no other machine. One per user, since what a library puts there is the user's own.
        "HOME": str(Path(tempfile.gettempdir()) / f"samebits-home-{os.getuid()}"),
        "LANG": "C.UTF-8",
        "TMPDIR": tempfile.gettempdir(),
        "PYTHONPATH": str(folder),
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        # The code is read-only and its hash is compared: compiled files may not lie in it.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Command((sys.executable, *start.arguments), {**clean, **start.env}, folder)


def clean(run_id: str) -> None:
    """Nothing can be left behind: the run dies with its task (PR_SET_PDEATHSIG)."""
    del run_id


def stored(store: Path) -> Iterator[Stored]:
    """The code folders and the locks of a store. Docker and Apptainer have code layers of their own."""
    for kind, paths in (("code", store.glob("code/[0-9a-f]*")), ("lock", store.glob("locks/*.lock"))):
        for path in paths:
            digest = path.name.removesuffix(".lock")
            name = f"{PREFIX}{digest}" if kind == "code" else f"sha256:{digest}"
            if kind == "code" and not path.is_dir():
                continue
            yield Stored(
                kind, "host", digest, size(path), path.stat().st_mtime, frozenset({name}), path.name, paths=(path,)
            )


def _environment(text: str, where: str) -> list[Problem]:
    wanted, problems = lock.pins(text, where)
    lines = lock.differences(wanted, lock.installed())
    if lines:
        shown = "\n".join(lines[:10] + ([f"... and {len(lines) - 10} more"] if len(lines) > 10 else []))  # noqa: PLR2004
        hint = f"{shown}\nInstall what is locked: make setup"
        problems.append(Problem("The environment is not the one that is locked.", where, hint))
    return problems


def _verify_code(pin: ImagePin, store: Path) -> list[Problem]:
    folder, wanted = _folder(store, pin), pin.code.removeprefix(PREFIX)
    if not folder.is_dir():
        return [Problem("The code is not in the store.", str(folder), "Launch again: it is made anew from the commit.")]
    found = tree_hash(folder)
    if found == wanted:
        return []
    hint = (
        f"Something wrote into the store. Remove that folder and launch again:\nchmod -R u+w {folder} && rm -r {folder}"
    )
    return [Problem(f"The code has the hash {found}; the run is pinned to {wanted}.", str(folder), hint)]


def _verify_environment(pin: ImagePin, store: Path) -> list[Problem]:
    path, wanted = _lock(store, pin), pin.environment
    problems = []
    if pin.python != platform.python_version():
        what = f"Python is {platform.python_version()}; the run is pinned to {pin.python}."
        problems.append(Problem(what, sys.executable))
    try:
        data = path.read_bytes()
    except OSError as error:
        return [*problems, Problem(f"The lock cannot be read: {error.strerror}.", str(path), "Launch again.")]
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != wanted:
        return [*problems, Problem(f"The lock has {found}; the run is pinned to {wanted}.", str(path))]
    return [*problems, *_environment(data.decode(errors="replace"), str(path))]


def _folder(store: Path, pin: ImagePin) -> Path:
    return code_folder(store, pin.code.removeprefix(PREFIX))


def _lock(store: Path, pin: ImagePin) -> Path:
    return lock_path(store, pin.environment.removeprefix("sha256:"))
