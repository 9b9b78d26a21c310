"""Puts the commit's files on top of an environment as one layer: an image whose id depends on commit and environment alone.

The layer is written here and loaded, with all below it only named: a fraction of a builder's time, and no clock in it. An engine
that wants every layer of what it loads (one with containerd's image store) builds it instead; then the id is that engine's own."""

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

from launcher.engines import docker_sdk
from launcher.engines.contained import CODE
from launcher.errors import ExitCode, LaunchError, fail

EPOCH: Final = "1970-01-01T00:00:00Z"
OPAQUE: Final = ".wh..wh..opq"
"""In a layer: nothing that lies below in this folder is seen."""
WHITEOUT: Final = ".wh."


def add_code(environment: str, folder: Path, labels: Mapping[str, str], tag: str) -> str:
    """The id of the image: the environment with the files of `folder` at CODE. Raises LaunchError (IMAGE)."""
    if taken := next(iter(sorted(folder.rglob(f"{WHITEOUT}*"))), None):
        what = f"Names that begin with `{WHITEOUT}` mean something else in an image."
        raise fail(ExitCode.IMAGE, what, where=str(taken.relative_to(folder)), hint="Call it otherwise.")
    below = docker_sdk.inspect(environment)
    if below is None:
        raise fail(ExitCode.IMAGE, f"Docker has no image {environment} any more.", hint="Launch again.")
    with tempfile.TemporaryFile() as layer, tempfile.TemporaryFile() as archive:
        _write_layer(layer, folder, alone=True)
        layer.seek(0)
        added = f"sha256:{hashlib.file_digest(layer, 'sha256').hexdigest()}"
        config = json.dumps(_config(below, added, labels), sort_keys=True).encode()
        image = f"sha256:{hashlib.sha256(config).hexdigest()}"
        _write_archive(archive, layer, config, len(below["RootFS"]["Layers"]), tag)
        archive.seek(0)
        try:
            docker_sdk.load(archive)
        except LaunchError:
            if docker_sdk.health() is not None:
                raise
        if docker_sdk.inspect(image) is not None:
            return image
    with tempfile.TemporaryFile() as layer:
        _write_layer(layer, folder, alone=False)
        return docker_sdk.build(f"FROM {environment}\nADD layer.tar /\nWORKDIR {CODE}\n", layer, labels, tag)


def _write_layer(file: IO[bytes], folder: Path, *, alone: bool) -> None:
    """`alone`: whatever an environment has at CODE itself is not seen. A builder takes no such mark."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for place in (CODE.parent, CODE):
            member = tarfile.TarInfo(str(place).lstrip("/"))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(member)
        if alone:
            layer.addfile(tarfile.TarInfo(f"{str(CODE).lstrip('/')}/{OPAQUE}"))
        for path in sorted(folder.iterdir()):
            layer.add(path, f"{str(CODE).lstrip('/')}/{path.name}", filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """As git knows it, whatever the umask is here: the job's user must be able to read it."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _config(below: Mapping[str, Any], added: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Of an image, as its format wants it."""
    layers = [*below["RootFS"]["Layers"], added]
    settings = {**below["Config"], "WorkingDir": str(CODE)}
    settings["Labels"] = {**(settings.get("Labels") or {}), **labels}
    of = [f"environment {below['Id']}"] * (len(layers) - 1) + [f"code git-tree:{labels.get('samebits.code', '')}"]
    variant = {"variant": below["Variant"]} if below.get("Variant") else {}
    return {
        "architecture": below["Architecture"],
        "os": below["Os"],
        **variant,
        "created": EPOCH,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": [{"created": EPOCH, "created_by": text} for text in of],
    }


def _write_archive(file: IO[bytes], layer: IO[bytes], config: bytes, below: int, tag: str) -> None:
    """As `docker save` writes it, without the layers that the engine has."""
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    layers = [*(f"below-{number}/layer.tar" for number in range(below)), "code/layer.tar"]
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": layers}]).encode()
    parts = ((name, BytesIO(config)), ("manifest.json", BytesIO(manifest)), ("code/layer.tar", layer))
    with tarfile.open(fileobj=file, mode="w") as archive:
        for title, part in parts:
            member = tarfile.TarInfo(title)
            member.size = part.seek(0, os.SEEK_END)
            part.seek(0)
            archive.addfile(member, part)
