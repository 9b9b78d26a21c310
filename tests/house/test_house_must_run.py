"""`--must-run` bites: a tier that only skipped has failed, with and without workers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("body", "code"), [("import pytest; pytest.skip('no cluster')", 5), ("pass", 0), ("assert 0", 1)]
)
def test_a_tier_that_ran_nothing_has_failed(tmp_path, body, code, workers):
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    argv = [sys.executable, "-m", "pytest", "--must-run", *workers, "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("no test passed" in done.stdout) == (code == 5)
