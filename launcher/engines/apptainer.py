"""The `apptainer` engine: the environment as a SIF, the code as a squashfs mounted over it, both in the store by content."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from jobs.contract import ImagePin
from jobs.files import now
from launcher.engines import ImageRequest, NodeOptions, Say, Workshop, apptainer_node, apptainer_program
from launcher.engines.contained import PREFIX, Layer, known_pin, pin_of
from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.store import Made, Stored, blob_path, locked, made_path, publish_blob, size

health = apptainer_program.health
command = apptainer_node.command
clean = apptainer_node.clean
verify = apptainer_node.verify
SIF, LAYER = apptainer_node.SIF, apptainer_node.LAYER


def pin(request: ImageRequest, store: Path) -> ImagePin | None:
    return known_pin(request, store)


def ensure(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """The environment, then the layer of the code; both compared with their digests. Raises LaunchError (IMAGE)."""
    from launcher.engines.apptainer_code import code_layer
    from launcher.engines.apptainer_sif import sif_environment

    if problems := health():
        raise LaunchError(ExitCode.IMAGE, problems)
    made = sif_environment(request, workshop, say)
    wanted = pin_of(request, made, code_layer(request, made, workshop.store, say))
    if problems := verify(wanted, NodeOptions(workshop.store)):
        raise LaunchError(ExitCode.IMAGE, problems)
    return wanted


def push(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """Put the SIF into the site's registry (ORAS). The layer of the code needs none: it is the same wherever it is made."""
    from launcher.engines.apptainer_registry import push_sif

    wanted = ensure(request, workshop, say)
    push_sif(request, wanted, workshop, say)
    return wanted


def pull(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """Take the SIF from the site's registry, look inside as after a build, and make the layer of the code."""
    from launcher.engines.apptainer_registry import pull_sif

    with locked(workshop.store, f"apptainer-{request.key}"):
        pull_sif(request, workshop, say).write(workshop.store)
    return ensure(request, workshop, say)


def archive(pin: ImagePin, store: Path, scratch: Path) -> dict[str, Path]:
    """The two files of an image."""
    del scratch
    return {
        "environment.sif": blob_path(store, pin.environment, SIF),
        "code.sqfs": blob_path(store, str(pin.layer), LAYER),
    }


def unarchive(pin: ImagePin, made: Made, files: Mapping[str, Path], store: Path, say: Say) -> None:
    """Put them into the store under their content, and record the layer. Raises LaunchError (FILES) for other content."""
    for name, wanted, suffix in (("environment.sif", pin.environment, SIF), ("code.sqfs", str(pin.layer), LAYER)):
        file = files[name]
        found = publish_blob(store, suffix, lambda new, file=file: _take(file, new))  # type: ignore[misc]
        if found != wanted:
            raise fail(ExitCode.FILES, f"{name} has {found}; the image is pinned to {wanted}.", where=name)
    Layer("apptainer", made.environment, pin.code.removeprefix(PREFIX), str(pin.layer), now()).write(store)
    say(f"environment {made.environment[:19]}")


def _take(file: Path, new: Path) -> None:
    """Its folder lies in the store, so that moving is a rename as a rule."""
    try:
        os.replace(file, new)  # noqa: PTH105 - as publish_blob's other makers
    except OSError:
        shutil.copyfile(file, new)


def stored(store: Path) -> Iterator[Stored]:
    """SIFs and layers, with what records them."""
    known: set[Path] = set()
    for record in sorted((store / "images").glob("*.apptainer.json")):
        made = Made.read(store, record.name.partition(".")[0], "apptainer")
        if made is not None:
            blob = blob_path(store, made.environment, SIF)
            known.add(blob)
            about = {"base": made.base, "python": made.python}
            names, lock = frozenset({made.environment, made.key}), f"apptainer-{made.key}"
            paths = (record, blob)
            yield Stored("environment", "apptainer", made.key, size(blob), _since(record), names, lock, paths, about)
    for record, layer in Layer.all(store, "apptainer"):
        blob = blob_path(store, layer.layer, LAYER)
        known.add(blob)
        names, lock = frozenset({layer.layer, f"{PREFIX}{layer.tree}"}), f"apptainer-code-{layer.tree}"
        yield Stored("code", "apptainer", layer.tree, size(blob), _since(record), names, lock, (record, blob))
    for suffix, kind in ((SIF, "environment"), (LAYER, "code")):
        # replaced in the records by a newer one: experiments that began with it still name it
        for blob in set((store / "blobs").glob(f"sha256-*{suffix}")) - known:
            digest = f"sha256:{blob.name.removeprefix('sha256-').removesuffix(suffix)}"
            name = digest.removeprefix("sha256:")
            yield Stored(kind, "apptainer", name, size(blob), _since(blob), frozenset({digest}), name, (blob,))


def discard(item: Stored, store: Path) -> None:
    """Nothing but files, which `stored` names; their records go first."""
    for path in item.paths or (made_path(store, item.name, "apptainer"),):
        path.unlink(missing_ok=True)


def _since(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


__all__ = ["Problem", "clean", "command", "ensure", "health", "pin", "verify"]
