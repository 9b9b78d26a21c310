"""The code as git knows it: what is refused, what a patch holds, and the exact bytes of a tree."""

import os
import subprocess
from pathlib import Path

import pytest
from project import Project, make_project

from launcher.errors import ExitCode, LaunchError
from launcher.gittree import tree_hash
from launcher.source import export, read_file, read_source


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


def odd_files(folder: Path) -> None:
    """Names and modes that a careless reader gets wrong, and attributes that change what git writes out."""
    for name in ("a b", "quo'te", 'dou"ble', "new\nline", "ümlaut", "-dash", "sub/deep/file", "sub.txt", "sub-file"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\r\nline $Id$\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("sub/deep/file")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "empty").touch()
    (folder / ".gitattributes").write_text("sub/** export-ignore\n* text=auto ident\n'a b' export-subst\n")


def test_a_commit_is_its_own_source(project: Project) -> None:
    found = read_source(project.config, allow_dirty=False)
    assert found.commit == project.git("rev-parse", "HEAD").strip()
    assert found.code_tree == project.git("rev-parse", "HEAD^{tree}").strip()
    assert not found.dirty


def test_exported_bytes_have_the_hash_of_the_tree(project: Project, tmp_path: Path) -> None:
    """Whatever attributes say, and whatever the names are."""
    odd_files(project.folder)
    project.git("add", "-A")
    project.git("commit", "-qm", "odd")
    found = read_source(project.config, allow_dirty=False)
    out = tmp_path / "out"
    out.mkdir()
    export(found.repository, found.code_tree, out)
    assert tree_hash(out) == found.code_tree
    assert os.access(out / "run.sh", os.X_OK)
    assert (out / "link").readlink() == Path("sub/deep/file")
    assert (out / "new\nline").exists()


@pytest.mark.parametrize("breach", ["content", "name", "mode", "link", "more", "less"])
def test_every_change_of_an_export_shows(project: Project, tmp_path: Path, breach: str) -> None:
    odd_files(project.folder)
    out = tmp_path / "out"
    subprocess.run(["cp", "-a", f"{project.folder}/.", out], check=True)
    subprocess.run(["rm", "-rf", out / ".git"], check=True)
    before = tree_hash(out)
    match breach:
        case "content":
            (out / "binary").write_bytes(bytes([1, *range(1, 256)]))
        case "name":
            (out / "sub.txt").rename(out / "sub.tyt")
        case "mode":
            (out / "run.sh").chmod(0o644)
        case "link":
            (out / "link").unlink()
            (out / "link").symlink_to("sub/deep/other")
        case "more":
            (out / "sub" / "more").touch()
        case "less":
            (out / "empty").unlink()
    assert tree_hash(out) != before


def test_a_dirty_tree_is_refused_with_its_files(project: Project) -> None:
    (project.folder / "new file.py").touch()
    (project.folder / "data" / "rows.jsonl").write_text("{}\n")
    with pytest.raises(LaunchError) as refusal:
        read_source(project.config, allow_dirty=False)
    text = str(refusal.value)
    assert refusal.value.code == ExitCode.SOURCE
    assert "new file.py" in text
    assert "data/rows.jsonl" in text
    assert "git add" in text
    assert "--allow-dirty" in text


def test_experiments_are_no_change(project: Project) -> None:
    (project.folder / ".gitignore").unlink()
    project.git("commit", "-qam", "nothing is ignored")
    (project.folder / "experiments" / "x").mkdir(parents=True)
    (project.folder / "experiments" / "x" / "config.yaml").touch()
    assert not read_source(project.config, allow_dirty=False, experiments=project.folder / "experiments").dirty
    with pytest.raises(LaunchError):
        read_source(project.config, allow_dirty=False)


def test_an_ignored_config_is_not_committed(project: Project) -> None:
    (project.folder / ".gitignore").write_text("/experiments/\nconfigs/mine.yaml\n")
    project.git("commit", "-qam", "ignore")
    mine = project.config.with_name("mine.yaml")
    mine.write_text(project.config.read_text())
    with pytest.raises(LaunchError, match="The config is not committed"):
        read_source(mine, allow_dirty=False)


def test_a_patch_makes_the_same_tree(project: Project, tmp_path: Path) -> None:
    """What --allow-dirty keeps is enough to make the code again, byte for byte; and the user's index is not touched."""
    odd_files(project.folder)
    project.git("add", "run.sh")
    (project.folder / "data" / "rows.jsonl").unlink()
    status = project.git("status", "--porcelain")
    found = read_source(project.config, allow_dirty=True)
    assert found.dirty
    assert found.patch is not None
    assert project.git("status", "--porcelain") == status

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", project.folder, clone], check=True)
    subprocess.run(["git", "apply", "--index", "--whitespace=nowarn"], cwd=clone, input=found.patch, check=True)
    tree = subprocess.run(["git", "write-tree"], cwd=clone, check=True, capture_output=True, text=True).stdout.strip()
    assert tree == found.code_tree


def test_a_file_of_the_commit_not_of_the_work_tree(project: Project) -> None:
    found = read_source(project.config, allow_dirty=False)
    (project.folder / "requirements.lock").write_text("other")
    committed = read_file(found, "requirements.lock")
    assert committed is not None
    assert b"==" in committed
    assert read_file(found, "no/such") is None


def test_a_foreign_repository(project: Project) -> None:
    """Git refuses what belongs to another user; the message says how to trust it."""
    os.chown(project.folder, 12345, 12345)
    os.chown(project.folder / ".git", 12345, 12345)
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.SOURCE, result.stderr
    assert "safe.directory" in result.stderr
    assert "Traceback" not in result.stderr
