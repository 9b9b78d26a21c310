"""The locks: complete, pinned, hashed, apart from each other, and those of pyproject.toml (R10, R26)."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME, CUDA, DEV = "requirements.lock", "images/requirements-cuda.lock", "requirements-dev.lock"
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+) \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def packages(text: str) -> dict[str, str]:
    """Name and version of each package. Raises ValueError for a line that is neither a pin, a hash nor a comment."""
    found: dict[str, str] = {}
    hashes = 1
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#"):
            continue
        if pin := PIN.match(line):
            if not hashes or pin[1] in found:
                raise ValueError(f"line {number}: {line}")
            found[pin[1]], hashes = pin[2], 0
        elif HASH.match(line):
            hashes += 1
        else:
            raise ValueError(f"line {number}: {line}")
    if not hashes:
        raise ValueError("the last package has no hash")
    return found


def locked(name: str) -> dict[str, str]:
    return packages((ROOT / name).read_text())


def declared(*, dev: bool) -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"]["dev"] if dev else project["dependencies"]
    pairs = (requirement.split("==") for requirement in wanted)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def is_cuda(name: str) -> bool:
    return name != "nvidia-ml-py" and (name.startswith(("nvidia-", "cuda-")) or name == "triton")


@pytest.mark.parametrize("name", [RUNTIME, CUDA, DEV])
def test_every_package_is_pinned_once_and_hashed(name):
    assert len(locked(name)) > 10


@pytest.mark.parametrize(
    "text",
    [
        "numpy>=2.4.6 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "numpy \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "numpy==2.4.6\n",
        "numpy==2.4.6 \\\nscipy==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "numpy==2.4.6 \\\n    --hash=md5:0123\n",
        "--index-url https://example.org/simple\n",
        "numpy @ file:///somewhere/numpy.whl \\\n    --hash=sha256:" + "0" * 64 + "\n",
    ],
)
def test_what_is_no_pin_with_a_hash_is_seen(text):
    with pytest.raises(ValueError, match=r"line|hash"):
        packages(text)


def test_the_locks_hold_what_the_project_declares():
    runtime = locked(RUNTIME)
    assert {name: runtime.get(name) for name in declared(dev=False)} == declared(dev=False)
    dev = locked(DEV) | runtime
    assert {name: dev.get(name) for name in declared(dev=True)} == declared(dev=True)


def test_what_builds_the_project_is_locked():
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert set(requires) <= {f"{name}=={version}" for name, version in locked(RUNTIME).items()}


def test_cuda_stands_apart_and_nothing_twice():
    runtime, cuda, dev = locked(RUNTIME), locked(CUDA), locked(DEV)
    assert [name for name in runtime if is_cuda(name)] == []
    assert [name for name in cuda if not is_cuda(name)] == []
    assert "nvidia-ml-py" in runtime
    assert "torch" in runtime
    assert not (runtime.keys() & cuda.keys()) | (runtime.keys() & dev.keys()) | (cuda.keys() & dev.keys())


def test_what_is_installed_here_is_what_is_locked():
    from launcher import lock

    wanted = locked(RUNTIME) | locked(DEV)
    assert lock.differences(wanted, lock.installed()) == []
    assert lock.differences({**wanted, "numpy": "0.0.1"}, lock.installed()) != []
