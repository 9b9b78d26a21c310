"""Bad input to the whole command: each gets one clear message, an exit code of its kind, no traceback, and nothing half-written."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from project import Project, make_project

from launcher.errors import ExitCode


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


@dataclass(frozen=True)
class Case:
    """One mistake: what is done to a good project, how it is launched, and what must be said."""

    name: str
    code: ExitCode
    says: tuple[str, ...]
    spoil: Callable[[Project], object] = lambda _project: None
    arguments: tuple[str, ...] = ("configs/x.yaml",)
    env: tuple[tuple[str, str], ...] = ()


def edit(old: str, new: str, *, commit: bool = True) -> Callable[[Project], None]:
    return lambda project: project.edit(old, new, commit=commit)


def write(name: str, text: str) -> Callable[[Project], object]:
    return lambda project: (project.folder / name).write_text(text)


def no_repository(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")


def no_commit(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    project.git("init", "-q")


def commit_removal(name: str) -> Callable[[Project], None]:
    def remove(project: Project) -> None:
        project.git("rm", "-q", name)
        project.git("commit", "-qm", "remove")

    return remove


def loose_lock(project: Project) -> None:
    lock = project.folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("click==", "click>=", 1))
    project.git("commit", "-qam", "loose")


def other_lock(project: Project) -> None:
    lock = project.folder / "requirements.lock"
    lock.write_text(lock.read_text() + "no-such-package==1.2.3 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    project.git("commit", "-qam", "more")


def name_as_file(project: Project) -> None:
    (project.folder / "experiments").mkdir()
    (project.folder / "experiments" / "tiny").write_text("in the way")


def new_config(project: Project) -> None:
    (project.folder / "configs" / "new.yaml").write_text(project.config.read_text().replace("name: tiny", "name: new"))


def empty(project: Project) -> None:
    (project.folder / "experiments").mkdir()


def missing_data(project: Project) -> None:
    commit_removal("data/rows.jsonl")(project)


NO_SLURM = (("PATH", "/nonexistent"),)
SLURM = ("configs/x.yaml", "--partition", "gpu")

CASES = [
    Case("no such config", ExitCode.CONFIG, ("configs/y.yaml",), arguments=("configs/y.yaml",)),
    Case("a folder as config", ExitCode.CONFIG, ("configs",), arguments=("configs",)),
    Case("broken YAML", ExitCode.CONFIG, ("configs/x.yaml:", "not valid YAML"), edit("name: tiny", "name: [tiny")),
    Case("duplicate key", ExitCode.CONFIG, ("configs/x.yaml:", "twice"), edit("name: tiny", "name: tiny\nname: other")),
    Case("typo", ExitCode.CONFIG, ("epochss", "epochs"), edit("  epochs: 1", "  epochss: 1")),
    Case("no seeds", ExitCode.CONFIG, ("seeds",), edit("seeds: [0, 1]\n", "")),
    Case("seed as text", ExitCode.CONFIG, ("seeds",), edit("[0, 1]", '["0", 1]')),
    Case("seed twice", ExitCode.CONFIG, ("twice",), edit("[0, 1]", "[1, 1]")),
    Case("negative seed", ExitCode.CONFIG, ("seeds",), edit("[0, 1]", "[-1]")),
    Case("seeds empty", ExitCode.CONFIG, ("seeds",), edit("[0, 1]", "[]")),
    Case("wrong type", ExitCode.CONFIG, ("batch_size",), edit("batch_size: 2", 'batch_size: "2"')),
    Case("name with a quote", ExitCode.CONFIG, ("name",), edit("name: tiny", 'name: "ti\'ny"')),
    Case("name with a space", ExitCode.CONFIG, ("a space",), edit("name: tiny", "name: ti ny")),
    Case("name with a line break", ExitCode.CONFIG, ("a line break",), edit("name: tiny", 'name: "ti\\nny"')),
    Case("name with ../", ExitCode.CONFIG, ("name",), edit("name: tiny", "name: ../tiny")),
    Case("two mistakes at once", ExitCode.CONFIG, ("epochss", "seeds"), edit("seeds: [0, 1]", "seeds: []\nepochss: 1")),
    Case("data file missing", ExitCode.CONFIG, ("data/rows.jsonl",), missing_data),
    Case("data hash wrong", ExitCode.CONFIG, ("sha256", "configs/x.yaml:"), lambda p: p.edit(hash_of(p), "0" * 64)),
    Case("data outside", ExitCode.CONFIG, ("data",), edit("path: data/rows.jsonl", "path: ../../../etc/none.jsonl")),
    Case("not a repository", ExitCode.SOURCE, ("git",), no_repository),
    Case("no commit yet", ExitCode.SOURCE, ("commit",), no_commit),
    Case("config not committed", ExitCode.SOURCE, ("git add", "new.yaml"), new_config, ("configs/new.yaml",)),
    Case(
        "config changed",
        ExitCode.SOURCE,
        ("configs/x.yaml", "git commit"),
        edit("epochs: 1", "epochs: 2", commit=False),
    ),
    Case("code not committed", ExitCode.SOURCE, ("model.py",), write("model.py", "x = 1\n")),
    Case("no git", ExitCode.SOURCE, ("git",), env=NO_SLURM),
    Case("lock missing", ExitCode.IMAGE, ("requirements.lock",), commit_removal("requirements.lock")),
    Case("lock with >=", ExitCode.IMAGE, ("requirements.lock", "click"), loose_lock),
    Case("package missing", ExitCode.IMAGE, ("no-such-package",), other_lock),
    Case("tree is a file", ExitCode.TREE, ("experiments/tiny",), name_as_file),
    Case("no Slurm", ExitCode.CLUSTER, ("sinfo", "PATH"), arguments=SLURM, env=(("PATH", "GIT_ONLY"),)),
    Case(
        "unknown site", ExitCode.CLUSTER, ("nowhere", "slurm/sites"), arguments=("configs/x.yaml", "--site", "nowhere")
    ),
    Case(
        "partition with a line break",
        ExitCode.USAGE,
        ("partition",),
        arguments=("configs/x.yaml", "--partition", "a\nb"),
    ),
    Case("time is no time", ExitCode.USAGE, ("--time",), arguments=(*SLURM, "--time", "soon")),
    Case("unknown flag", ExitCode.USAGE, ("--sed",), arguments=("configs/x.yaml", "--sed", "1")),
    Case("a seed on the command line", ExitCode.USAGE, ("--seed",), arguments=("configs/x.yaml", "--seed", "1")),
    Case("unknown verb", ExitCode.USAGE, ("statsu", "status"), arguments=("statsu",)),
    Case("two places", ExitCode.USAGE, ("--local",), arguments=("configs/x.yaml", "--local", "--partition", "gpu")),
    Case("status of nothing", ExitCode.NOT_FOUND, ("nothing",), empty, ("status", "nothing")),
    Case("logs of nothing", ExitCode.NOT_FOUND, ("nothing",), empty, ("logs", "nothing")),
    Case("cancel of nothing", ExitCode.NOT_FOUND, ("nothing",), empty, ("cancel", "nothing")),
    Case("status of ../", ExitCode.NOT_FOUND, ("..",), arguments=("status", "../tiny")),
]


def hash_of(project: Project) -> str:
    return hashlib.sha256((project.folder / "data" / "rows.jsonl").read_bytes()).hexdigest()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_clear_message_and_nothing_written(project: Project, tmp_path: Path, case: Case) -> None:
    case.spoil(project)
    before = project.files()
    only_git = tmp_path / "bin"
    only_git.mkdir()
    (only_git / "git").symlink_to(str(shutil.which("git")))
    env = {key: value.replace("GIT_ONLY", str(only_git)) for key, value in case.env}

    result = project.launch(*case.arguments, **env)

    assert result.returncode == case.code, result.stderr
    for fragment in case.says:
        assert fragment in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert "pydantic" not in result.stderr
    assert project.files() == before


def test_full_disk(project: Project) -> None:
    """A file system of 64 KiB for the trees: refused with the place, and goes on once there is space."""
    experiments = project.folder / "experiments"
    experiments.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(experiments)], check=True)
    try:
        (experiments / "filler").write_bytes(b"x" * 61440)
        result = project.launch("configs/x.yaml")
        assert result.returncode == ExitCode.FILES, result.stderr
        assert "No space left" in result.stderr or "full" in result.stderr
        assert "experiments" in result.stderr
        assert "Traceback" not in result.stderr
        assert not list(experiments.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(experiments)], check=True)
