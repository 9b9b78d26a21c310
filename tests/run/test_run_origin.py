"""Where what a run has loaded comes from: real interpreters with real folders, each breach planted."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import miniature
import pytest

from jobs.contract import Exit
from jobs.rundir import RunDir

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from jobs import origin
from jobs.errors import Refused
for name in sys.argv[1:]:
    __import__(name)
try:
    origin.check()
except Refused as reason:
    print(reason)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The code of a commit, as far as the check needs it, in a folder whose name must be quoted somewhere."""
    folder = tmp_path / "the code"
    (folder / "jobs").mkdir(parents=True)
    for name in ("__init__.py", "origin.py", "errors.py"):
        shutil.copy(ROOT / "jobs" / name, folder / "jobs")
    return folder


def said(code: Path, *modules: str, python: Path | str = sys.executable, cwd: Path | None = None, **env: str) -> str:
    """What the check says in a process that starts as the host engine's runs do."""
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(code), "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
    argv = [python, "-B", "-c", PROGRAM, *modules]
    variables = {name: value for name, value in {**clean, **env}.items() if value}
    done = subprocess.run(argv, env=variables, cwd=cwd or code, capture_output=True, text=True, check=True)
    return done.stdout


def module(folder: Path, name: str, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def test_a_run_as_it_should_be_passes(code):
    module(code, "mine")
    module(code, "tests")
    (code / "yaml").mkdir()  # data in a folder of that name hides nothing
    assert said(code, "mine", "json", "numpy", "yaml", "encodings.idna", "concurrent.futures") == ""


def test_a_leaked_pythonpath_is_named_even_before_it_is_used(code, tmp_path):
    other = tmp_path / "other"
    module(other, "tool")
    both = f"{code}:{other}"
    assert f"sys.path has {other}: it comes from PYTHONPATH. Unset that." in said(code, PYTHONPATH=both)
    found = said(code, "tool", PYTHONPATH=both)
    assert f"tool is loaded from {other}/tool.py, outside of the environment {sys.prefix}." in found


def test_a_module_is_named_though_its_folder_left_the_path(code, tmp_path):
    module(tmp_path / "other", "tool")
    module(code, "mine", f"import sys; sys.path.append({str(tmp_path / 'other')!r}); import tool; sys.path.pop()\n")
    found = said(code, "mine")
    assert f"tool is loaded from {tmp_path}/other/tool.py" in found
    assert "sys.path" not in found


def test_a_user_site_is_named(code, tmp_path):
    """Off in an environment, on in one that sees the system's packages."""
    folder = tmp_path / "env"
    venv.create(folder, symlinks=True, system_site_packages=True)
    user = tmp_path / "user"
    site = user / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    module(site, "tool")
    python = folder / "bin" / "python"
    found = said(code, "tool", python=python, PYTHONNOUSERSITE="", PYTHONUSERBASE=str(user))
    assert f"sys.path has {site}: packages outside of the environment. Set PYTHONNOUSERSITE=1" in found
    assert f"tool is loaded from {site}/tool.py" in found


def test_packages_of_the_system_are_outside(code, tmp_path):
    folder = tmp_path / "env"
    venv.create(folder, symlinks=True, system_site_packages=True)
    found = said(code, python=folder / "bin" / "python")
    assert "-packages: packages outside of the environment." in found


def test_what_the_environment_itself_declares_is_its_own(code, tmp_path):
    """One environment on another by a .pth file, and an editable install, whose work tree may be there but brings nothing."""
    folder, below, work = tmp_path / "env", tmp_path / "below" / "site-packages", tmp_path / "work"
    venv.create(folder, symlinks=True)
    module(below, "layered")
    module(work, "mine")
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "own.pth").write_text(f"# why\nimport sys\n{work}\n{below}\n/not/there\n")
    python = folder / "bin" / "python"
    assert said(code, "layered", python=python) == ""
    assert f"mine is loaded from {work}/mine.py, outside of the environment" in said(code, "mine", python=python)
    module(code, "mine")
    assert said(code, "mine", python=python) == "", "the code comes first"
    assert f"sys.path has {work}: it comes from PYTHONPATH" in said(code, python=python, PYTHONPATH=f"{code}:{work}")


def test_the_folder_that_a_run_is_started_in_is_no_place_for_modules(code, tmp_path):
    found = said(code, cwd=tmp_path, PYTHONSAFEPATH="")
    assert f"sys.path has {tmp_path}: the folder that the run was started in. Start it in that of its code" in found
    assert said(code, cwd=code, PYTHONSAFEPATH="") == ""


@pytest.mark.parametrize("name", ["yaml", "colorsys", "numpy"])
def test_a_file_beside_the_code_may_not_hide_a_package_or_the_standard_library(code, name):
    path = module(code, name)
    for modules in ((), (name,)):
        found = said(code, *modules)
        assert f"{path} hides {name} of " in found
        assert "Rename it" in found


def test_a_package_beside_the_code_hides_as_well(code):
    module(code / "yaml", "__init__")
    assert f"{code / 'yaml'} hides yaml of {sys.prefix}" in said(code)
    assert f"{code / 'yaml' / '__init__.py'} hides yaml of {sys.prefix}" in said(code, "yaml")


def test_what_no_library_imports_hides_only_once_it_is_loaded(code, tmp_path):
    module(code, "test")
    assert said(code) == ""
    assert f"{code / 'test.py'} hides test of " in said(code, "test")


def test_the_way_to_a_folder_does_not_matter(code, tmp_path):
    """Site-packages and code behind links, as homes on clusters are."""
    link = tmp_path / "link"
    link.symlink_to(code)
    module(code, "mine")
    assert said(link, "mine", "numpy") == ""
    module(code, "yaml")
    assert "hides yaml" in said(link, "yaml")


def test_a_path_below_the_code_is_not_its_folder(code):
    module(code / "vendor", "tool")
    assert f"sys.path has {code}/vendor: " in said(code, PYTHONPATH=f"{code}:{code}/vendor")


def test_all_is_said_at_once_but_not_without_end(code, tmp_path):
    folders = [tmp_path / f"other{number}" for number in range(9)]
    found = said(code, PYTHONPATH=":".join(map(str, [code, *folders])))
    assert found.count("sys.path has") == 5
    assert "... and 4 more" in found


def test_the_whole_program_refuses(tmp_path):
    """With its real libraries: exit code 78 before anything is computed or recorded."""
    run = RunDir.of_specification(miniature.make_tree(tmp_path))
    module(tmp_path / "other", "tool")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'other'}", "PYTHONSAFEPATH": "1"}
    argv = [sys.executable, "-m", "jobs", str(run.specification)]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.REFUSED, done.stderr
    assert f"sys.path has {tmp_path / 'other'}: it comes from PYTHONPATH" in done.stderr
    assert "Traceback" not in done.stderr
    assert not run.provenance.exists()
