"""What is inside of an environment: real virtual environments, looked into from within, with each breach planted."""

import copy
import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from launcher import lock
from launcher.image import inside

LOCKS = {"requirements.lock": "", "images/requirements-cuda.lock": ""}


def look(python: Path, *modules: str, **env: str) -> dict:
    done = subprocess.run([python, *inside.arguments(modules)], capture_output=True, text=True, check=True, env=env)
    return inside.read_report(done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An environment with two packages and a torch that is built for CUDA, as far as looking goes."""
    folder = tmp_path_factory.mktemp("inside") / "env"
    venv.create(folder, symlinks=True, with_pip=False)
    install(folder, "alpha", "1.0")
    install(folder, "Beta_Pack", "2.1")
    install(folder, "torch", "2.13.0")
    (packages(folder) / "torch" / "version.py").write_text("__version__ = '2.13.0+cu130'\ncuda: str = '13.0'\n")
    install(folder, "nvidia-cudnn", "9.1")
    return folder


def packages(folder: Path) -> Path:
    return next(folder.glob("lib/python3*/site-packages"))


def install(folder: Path, name: str, version: str, at: Path | None = None) -> None:
    where = at or packages(folder)
    module = where / name.lower().replace("-", "_")
    module.mkdir(exist_ok=True, parents=True)
    (module / "__init__.py").write_text("")
    info = where / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def locks(*pins: str, cuda: tuple[str, ...] = ("nvidia-cudnn==9.1",)) -> dict[str, str]:
    return {name: "\n".join(lines) for name, lines in zip(LOCKS, (pins, cuda), strict=True)}


GOOD = locks("alpha==1.0", "beta-pack==2.1", "torch==2.13.0")


@pytest.fixture(scope="module")
def report(made) -> dict:
    return look(made / "bin" / "python", "torch", "alpha")


def test_what_is_locked_and_nothing_else_is_right(report, made):
    assert inside.check_inside(report, GOOD) == []
    assert report["prefix"] == str(made)
    assert report["torch"] == {"version": "2.13.0+cu130", "cuda": "13.0", "error": None}
    assert report["pip"] is False
    assert {name: found["error"] for name, found in report["imports"].items()} == {"torch": None, "alpha": None}
    assert inside.freeze(report) == ["alpha==1.0", "beta-pack==2.1", "nvidia-cudnn==9.1", "torch==2.13.0"]


def test_the_report_is_that_of_the_environment_whatever_its_surroundings(report, made, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('taken from PYTHONPATH')")
    again = look(made / "bin" / "python", PYTHONPATH=str(tmp_path), HOME=str(tmp_path))
    assert {**again, "imports": report["imports"]} == report


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (locks("alpha==1.0", "torch==2.13.0"), "beta-pack==2.1 is installed, and not locked"),
        (
            locks("alpha==1.0", "beta-pack==2.1", "gamma==3", "torch==2.13.0"),
            "gamma==3 is not installed",
        ),
        (
            locks("alpha==1.1", "beta-pack==2.1", "torch==2.13.0"),
            "alpha==1.1 is pinned, 1.0 is installed",
        ),
        (
            locks("alpha==1.0", "beta-pack==2.1", "torch==2.13.0", cuda=("nvidia-cudnn==9.2",)),
            "nvidia-cudnn==9.2 is pinned, 9.1 is installed",
        ),
    ],
)
def test_what_differs_is_named_with_both_sides(report, wrong, said):
    (problem,) = inside.check_inside(report, wrong, "image sha256:1")
    assert problem.where == "image sha256:1"
    assert said in problem.hint.splitlines()
    assert "built for CUDA 13.0; compared with requirements.lock and images/requirements-cuda.lock" in problem.what
    assert "pip install --require-hashes" in problem.hint


def test_without_cuda_its_lock_is_not_installed(report):
    plain = {**report, "torch": {"version": "2.13.0+cpu", "cuda": None, "error": None}}
    (problem,) = inside.check_inside(plain, GOOD)
    said = "nvidia-cudnn==9.1 is installed, which images/requirements-cuda.lock pins, but torch is built without CUDA"
    assert said in problem.hint.splitlines()
    plain["packages"] = [one for one in report["packages"] if one[0] != "nvidia-cudnn"]
    assert inside.check_inside(plain, GOOD) == []


def test_what_installs_may_be_there_unlocked(report):
    more = copy.deepcopy(report)
    more["packages"] += [[name, "1", report["packages"][0][2]] for name in ("pip", "setuptools", "wheel")]
    assert inside.check_inside(more, GOOD) == []
    pinned = {**GOOD, "requirements.lock": GOOD["requirements.lock"] + "\nsetuptools==2"}
    (problem,) = inside.check_inside(more, pinned)
    assert "setuptools==2 is pinned, 1 is installed" in problem.hint


def test_one_package_twice_is_named(made, tmp_path):
    folder = copy_of(made, tmp_path)
    install(folder, "alpha", "0.9")
    (problem,) = inside.check_inside(look(folder / "bin" / "python"), GOOD)
    assert "alpha is installed twice: 0.9, and 1.0" in problem.hint


def test_packages_outside_of_the_environment_are_named(made, tmp_path):
    folder, elsewhere = copy_of(made, tmp_path), tmp_path / "elsewhere"
    install(folder, "delta", "1", at=elsewhere)
    (packages(folder) / "more.pth").write_text(f"{elsewhere}\n")
    found = look(folder / "bin" / "python")
    problems = inside.check_inside(found, {**GOOD, "requirements.lock": GOOD["requirements.lock"] + "\ndelta==1"})
    (problem,) = problems
    assert str(folder) in problem.what
    assert f"sys.path: {elsewhere}" in problem.hint
    assert f"delta==1: {elsewhere}" in problem.hint


def test_the_systems_packages_are_outside(tmp_path):
    """Debian's own, which an environment can be told to see."""
    venv.create(tmp_path / "env", symlinks=True, system_site_packages=True)
    found = look(tmp_path / "env" / "bin" / "python")
    outside = [entry for entry in found["path"] if not entry.startswith(str(tmp_path)) and "-packages" in entry]
    assert outside, "this interpreter has no packages of the system's"
    problem = inside.check_inside(found, {"requirements.lock": "a==1"})[-1]
    assert "can be imported from outside" in problem.what
    assert all(f"sys.path: {entry}" in problem.hint for entry in outside)


def test_a_torch_that_cannot_be_imported_is_refused_with_its_reason(made, tmp_path):
    folder = copy_of(made, tmp_path)
    (packages(folder) / "torch" / "__init__.py").write_text("raise ImportError('libcudnn.so.9: not found')")
    found = look(folder / "bin" / "python", "torch")
    (problem,) = inside.check_inside(found, GOOD)
    assert problem.what == "`import torch` fails: ImportError: libcudnn.so.9: not found."
    assert "CUDA_LOCK" in problem.hint
    (packages(folder) / "torch" / "version.py").write_text("syntax error")
    assert "torch's build cannot be read: SyntaxError" in str(
        inside.check_inside(look(folder / "bin" / "python"), GOOD)[0]
    )


def test_a_python_that_is_too_old_is_refused(report):
    (problem,) = inside.check_inside({**report, "python": "3.9.2"}, GOOD)
    assert "Python is 3.9.2" in problem.what
    assert "ARG BASE" in problem.hint


def test_a_report_is_its_last_line():
    text = "a library spoke\n" + json.dumps({"packages": []}) + "\n"
    assert inside.read_report(text) == {"packages": []}
    for other in ("", "{}", "3", "Traceback: oh"):
        with pytest.raises(ValueError):
            inside.read_report(other)


def test_this_environment_is_what_is_locked():
    """The real torch, in the real environment; development's packages are in a lock of their own."""
    root = Path(__file__).parents[2]
    found = look(Path(sys.executable), "torch")
    assert found["imports"]["torch"]["error"] is None
    dev = lock.pins((root / "requirements-dev.lock").read_text(), "dev")[0]
    found["packages"] = [one for one in found["packages"] if lock.normalised(one[0]) not in {*dev, "samebits"}]
    found["path"] = [entry for entry in found["path"] if not entry.endswith("__path_hook__")]  # its editable install
    assert inside.check_inside(found, {name: (root / name).read_text() for name in LOCKS}) == []


def copy_of(made: Path, tmp_path: Path) -> Path:
    """The environment again, to be broken."""
    folder = tmp_path / "env"
    venv.create(folder, symlinks=True)
    for path in packages(made).iterdir():
        (packages(folder) / path.name).mkdir()
        for file in path.iterdir():
            if file.is_file():
                (packages(folder) / path.name / file.name).write_bytes(file.read_bytes())
    return folder
