"""The files that a config names, looked at before anything is started: are they there, and are they what is pinned?"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import ExitCode, LaunchError, Problem

if TYPE_CHECKING:
    from launcher.config.load import Loaded


def check_inputs(loaded: "Loaded", repository: Path) -> None:
    """Raises LaunchError (CONFIG) with every file that is missing or another one than the config pins."""
    problems = [
        problem for key, path, digest in _files(loaded) if (problem := _check(loaded, key, repository / path, digest))
    ]
    if problems:
        raise LaunchError(ExitCode.CONFIG, problems)


def mounts(loaded: "Loaded", repository: Path, cache: Path) -> dict[str, str]:
    """What a container must see of this machine to read the config's inputs: each at its own path, read-only; and the hub's
    `cache` where a model comes from a hub."""
    found = {str(repository / path): "ro" for _, path, _ in _files(loaded)}
    pretrained = loaded.experiment.model.pretrained
    if pretrained is not None and pretrained.path is not None:
        found = {path: mode for path, mode in found.items() if not path.startswith(f"{repository / pretrained.path}/")}
        found[str(repository / pretrained.path)] = "ro"
    if pretrained is not None and pretrained.id is not None:
        found[str(cache)] = "rw"
    return found


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where models from a hub are kept: they are pinned by revision, so all runs may share them."""
    return Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")


def _files(loaded: "Loaded") -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(key of the path, path, sha256) of each."""
    data, model = loaded.experiment.data, loaded.experiment.model
    if data.files is not None:
        yield ("data", "files", "train"), data.files.train.path, data.files.train.sha256
        yield ("data", "files", "validation"), data.files.validation.path, data.files.validation.sha256
    if model.pretrained is not None and model.pretrained.path is not None:
        for name, digest in (model.pretrained.sha256 or {}).items():
            yield ("model", "pretrained"), str(Path(model.pretrained.path, name)), digest


def _check(loaded: "Loaded", key: tuple[str, ...], path: Path, digest: str) -> Problem | None:
    from launcher.config import document

    line = document.read(loaded.text).line_of(key)
    where = f"{loaded.file}:{line}: {'.'.join(key)}"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Problem(f"{path} cannot be read: {error.strerror}.", where, "Paths start at the top of the repository.")
    if found == digest:
        return None
    hint = f"It has sha256: {found}"
    return Problem(f"{path} is not the file that is pinned with sha256 {digest}.", where, hint)
