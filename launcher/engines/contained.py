"""What both container engines share: the context of a build, the look inside, the records of code layers, a run's variables."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from jobs.contract import ImagePin
from jobs.files import now, publish_json
from launcher import lock
from launcher.engines import BuildOptions, ImageRequest, Start
from launcher.errors import ExitCode, LaunchError
from launcher.store import Made

CODE: Final = Path("/samebits/code")
"""Where the commit's files are in an image."""
PREFIX: Final = "git-tree:"


@dataclass(frozen=True, slots=True)
class Layer:
    """`STORE/layers/ENGINE/ENVIRONMENT-TREE.json`: the code of one tree on one environment."""

    engine: str
    environment: str
    tree: str
    layer: str
    """As in the pin: ``sha256:`` of it."""
    time: str
    manifest: str | None = None

    @classmethod
    def read(cls, store: Path, engine: str, environment: str, tree: str) -> "Layer | None":
        """None where none was made, or its record cannot be read."""
        return cls._of(_path(store, engine, environment, tree))

    @classmethod
    def all(cls, store: Path, engine: str) -> "Iterator[tuple[Path, Layer]]":
        """Every readable record, with its file."""
        for path in sorted((store / "layers" / engine).glob("*.json")):
            if (found := cls._of(path)) is not None:
                yield path, found

    @classmethod
    def _of(cls, path: Path) -> "Layer | None":
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, store: Path) -> "Layer":
        path = _path(store, self.engine, self.environment, self.tree)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_json(path, asdict(self))
        return self


def _path(store: Path, engine: str, environment: str, tree: str) -> Path:
    return store / "layers" / engine / f"{environment.removeprefix('sha256:')[:32]}-{tree}.json"


def pin_of(request: ImageRequest, made: Made, layer: Layer) -> ImagePin:
    """The pin of a run."""
    return ImagePin(
        engine=request.engine,
        environment=made.environment,
        code=f"{PREFIX}{request.code_tree}",
        python=made.python,
        base=made.base,
        layer=layer.layer,
        manifest=layer.manifest,
        key=request.key,
    )


def known_pin(request: ImageRequest, store: Path) -> ImagePin | None:
    """The pin, where the store has records of environment and code."""
    made = Made.read(store, request.key, request.engine)
    layer = Layer.read(store, request.engine, made.environment, request.code_tree) if made else None
    return pin_of(request, made, layer) if made and layer else None


def write_context(request: ImageRequest, folder: Path) -> None:
    """Recipe, locks and further files into an empty folder: exactly the ingredients, from git."""
    for path, data in _ingredients(request):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _ingredients(request: ImageRequest) -> Iterator[tuple[str, bytes]]:
    from launcher.plan import Source
    from launcher.source import read_file

    source = Source(request.repository, request.commit, request.code_tree, None, ())
    for one in request.ingredients:
        data = read_file(source, one.path)
        if data is None:
            raise LaunchError(ExitCode.IMAGE, [])
        yield one.path, data


def locks(request: ImageRequest) -> dict[str, str]:
    """Path and text of each lock, the first one first."""
    texts = {path: data.decode(errors="replace") for path, data in _ingredients(request)}
    return {path: texts[path] for path in (request.lock, request.cuda_lock) if path is not None}


def modules(request: ImageRequest) -> tuple[str, ...]:
    """What is imported once when an environment is made, to see that it can be."""
    pins, _ = lock.pins(locks(request)[request.lock], request.lock)
    return ("torch",) if "torch" in pins else ()


def made(request: ImageRequest, environment: str, report: Mapping[str, Any], manifest: str | None = None) -> Made:
    """The record of an environment, once it was looked at: raises LaunchError (IMAGE) where it is not what is locked."""
    from launcher.image.inside import check_inside, freeze

    if problems := check_inside(report, locks(request), where=f"{request.recipe}, environment {request.key[:12]}"):
        raise LaunchError(ExitCode.IMAGE, problems)
    return Made(
        key=request.key,
        engine=request.engine,
        environment=environment,
        base=request.base or "",
        python=str(report["python"]),
        packages=tuple(freeze(report)),
        lock_sha256=request.lock_sha256,
        made_from={
            "build": request.build,
            "recipe": request.recipe,
            "commit": request.commit,
            "origin": request.origin,
            "ingredients": {one.path: one.sha256 for one in request.ingredients},
        },
        time=now(),
        manifest=manifest,
    )


def pip_configuration(build: BuildOptions, ca: str | None) -> str:
    """pip.conf of a build; `ca`: where the build sees the certificates. Empty where the site says nothing."""
    lines = []
    if ca is not None:
        lines.append(f"cert = {ca}")
    if build.index_url:
        lines.append(f"index-url = {build.index_url}")
    if build.extra_index_urls:
        lines.append("extra-index-url = " + "\n    ".join(build.extra_index_urls))
    if build.find_links:
        lines.append("find-links = " + "\n    ".join(build.find_links))
        hosts = {url.split("/")[2].split(":")[0] for url in build.find_links if url.startswith("http://")}
        lines += ["trusted-host = " + "\n    ".join(sorted(hosts))] if hosts else []
    return "[global]\ntimeout = 180\n" + "\n".join(lines) + "\n" if lines else ""


def variables(start: Start) -> dict[str, str]:
    """What a container sets besides the run's own: none of it is secret."""
    fixed = {
        "HOME": "/tmp",  # noqa: S108 - the container's own
        "TMPDIR": "/tmp",  # noqa: S108
        "USER": "samebits",
        "LOGNAME": "samebits",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(CODE),
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {name: value for name, value in fixed.items() if name not in start.env}


def own_variables(*names: str) -> dict[str, str]:
    """Those of this process that a client of an engine needs, if they are set."""
    return {name: os.environ[name] for name in ("PATH", *names) if name in os.environ}
