"""A file of JSON lines that a run appends to, that resuming cuts back, and that a newer attempt fences off."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class LineFile:
    """Open for appending at byte `size`; what lay behind it is cut off. `fence` is asked before each write and raises.

    Raises ValueError when the file is shorter than `size`: then it lost lines that the checkpoint counts on."""

    def __init__(self, path: Path, size: int, fence: Callable[[], None]) -> None:
        fence()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        found = os.fstat(self._handle).st_size
        if found < size:
            os.close(self._handle)
            msg = f"{path} has {found} bytes, the checkpoint counts on {size}"
            raise ValueError(msg)
        os.ftruncate(self._handle, size)
        self._fence = fence
        self.size = size

    def append(self, value: Mapping[str, Any]) -> bytes:
        """Write one line; returns its bytes, line break included.

        Raises OSError when the disk is full: a half of a line is taken back first."""
        self._fence()
        line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._handle, line[written:], self.size + written)
        except OSError:
            os.ftruncate(self._handle, self.size)
            raise
        self.size += len(line)
        return line

    def sync(self) -> None:
        """Make it durable: before a checkpoint that names its length is published."""
        os.fsync(self._handle)

    def close(self) -> None:
        os.close(self._handle)
