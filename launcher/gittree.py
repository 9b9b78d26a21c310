"""The hash that git gives a folder, computed from its files alone: a code layer is checked without git. Standard library only."""

import hashlib
import os
from pathlib import Path


def tree_hash(folder: Path) -> str:
    """The hash of the tree object that git would make of `folder`: 40 hex digits.

    Names, contents, symlinks and the exec bit count; times, owners and other permissions do not. Empty folders do not exist
    for git. Raises OSError."""
    return _tree(os.fsencode(folder)).hex()


def _object(kind: bytes, data: bytes) -> bytes:
    return hashlib.sha1(kind + b" %d\0" % len(data) + data, usedforsecurity=False).digest()


def _tree(folder: bytes) -> bytes:
    lines = []
    for entry in os.scandir(folder):
        if entry.is_symlink():
            mode, digest = b"120000", _object(b"blob", os.readlink(entry.path))  # noqa: PTH115 - git hashes the bytes
        elif entry.is_dir():
            mode, digest = b"40000", _tree(entry.path)
            if digest == EMPTY:
                continue
        else:
            mode = b"100755" if entry.stat().st_mode & 0o100 else b"100644"
            digest = _object(b"blob", _read(entry.path))
        # git sorts a folder as if its name ended in a slash
        lines.append((entry.name + (b"/" if mode == b"40000" else b""), mode + b" " + entry.name + b"\0" + digest))
    return _object(b"tree", b"".join(line for _, line in sorted(lines)))


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - git's names are bytes
        return file.read()


EMPTY = _object(b"tree", b"")
