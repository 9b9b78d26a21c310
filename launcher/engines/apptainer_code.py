"""The layer of the code: a squashfs of a git tree, the same bytes whoever makes it."""

import tempfile
from pathlib import Path
from typing import Final

from jobs.files import now
from launcher import verified
from launcher.engines import ImageRequest, Say
from launcher.engines.apptainer_node import LAYER
from launcher.engines.apptainer_program import environment
from launcher.engines.contained import Layer
from launcher.errors import ExitCode, fail
from launcher.gittree import tree_hash
from launcher.process import check, run
from launcher.store import Made, blob_path, locked, publish_blob

OPTIONS: Final = (
    *("-all-root", "-all-time", "0", "-mkfs-time", "0", "-no-xattrs", "-comp", "gzip", "-processors", "1"),
    *("-noappend", "-no-progress", "-quiet"),
)
"""gzip, since every kernel and every squashfuse reads it. Neither owners nor times; modes are git's two."""


def code_layer(request: ImageRequest, made: Made, store: Path, say: Say) -> Layer:
    """Find or make the layer of the request's tree. One that was changed in the store is made anew: the bytes are the same.

    Raises LaunchError (IMAGE)."""
    tree = request.code_tree
    known = Layer.read(store, "apptainer", made.environment, tree)
    if known is not None and _whole(store, known.layer):
        return known
    with locked(store, f"apptainer-code-{tree}"):
        known = Layer.read(store, "apptainer", made.environment, tree)
        if known is not None and _whole(store, known.layer):
            return known
        digest = publish_blob(store, LAYER, lambda file: pack(request.repository, tree, file))
        say(f"code of {request.commit[:10]} -> {digest[:19]}")
        return Layer("apptainer", made.environment, tree, digest, now()).write(store)


def _whole(store: Path, digest: str) -> bool:
    try:
        return verified.digest(blob_path(store, digest, LAYER)) == digest
    except OSError:
        return False


def pack(repository: Path, tree: str, file: Path) -> None:
    """Write the squashfs of a git tree. Raises LaunchError (IMAGE)."""
    from launcher.source import export

    with tempfile.TemporaryDirectory(prefix="samebits-code-") as scratch:
        folder = Path(scratch, "code")
        folder.mkdir()
        export(repository, tree, folder)
        if (found := tree_hash(folder)) != tree:
            raise fail(ExitCode.IMAGE, f"The exported code has the hash {found}, not {tree}.", where=str(folder))
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)  # whatever this user's umask is
        done = run(
            ["mksquashfs", str(folder), str(file), *OPTIONS],
            env=environment(),
            exactly=True,
            timeout=600,
            kind=ExitCode.IMAGE,
        )
    check(done, ExitCode.IMAGE, "The layer of the code could not be made.", "squashfs-tools must be 4.4 or newer.")
