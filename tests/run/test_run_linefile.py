"""A file of lines that is cut back: the old one stands until the new one is whole."""

import subprocess
import sys


def test_run_reopened_on_a_disk_that_takes_half_keeps_the_old_file(tmp_path):
    """A write that is cut short raises nothing by itself: the old file must stand, and the run must say so."""
    program = """
import pathlib, resource, signal, sys
from jobs.linefile import LineFile, Mark
path = pathlib.Path(sys.argv[1])
import hashlib
data = path.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, len(data) // 2))
LineFile(path, Mark(len(data), hashlib.sha256(data).hexdigest()), lambda: None)
"""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' * 20000)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))
