"""What `launch chaos` answers to what cannot be: in words, with an exit code, and with nothing begun."""

from pathlib import Path

import pytest
from project import Project, make_project

from launcher.chaos.scene import UnableError, disk_full, fillable


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


BAD = [
    ([], 2, "Say where: --local, --partition NAME or --site NAME."),
    (["--local", "--partition", "gpu"], 2, "--local runs on this machine, where --partition would mean nothing."),
    (["--local", "--as-admin"], 2, "--as-admin would mean nothing"),
    (["--partition", "gpu", "--stop-node", "true"], 2, "--stop-node and --start-node come together"),
    (["--local", "--only", "preempt"], 2, "--only preempt: no such blow on this machine."),
    (["--local", "--blows", "0"], 2, "0 is not in the range"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), BAD)
def test_chaos_bad_flags(project: Project, arguments: list[str], code: int, said: str) -> None:
    done = project.launch("chaos", str(project.config), *arguments)
    shown = done.stdout + done.stderr
    assert (done.returncode, "Traceback" in shown) == (code, False), shown
    assert said in " ".join(shown.split())
    assert not list(project.folder.glob("experiments/chaos/*/*/*-beaten"))


def test_chaos_a_config_that_is_not_there_or_wrong(project: Project) -> None:
    missing = project.launch("chaos", "configs/none.yaml", "--local")
    assert missing.returncode != 0
    assert "configs/none.yaml" in missing.stderr
    project.edit("epochs: 1", "epochs: none")
    wrong = project.launch("chaos", str(project.config), "--local")
    assert wrong.returncode != 0
    assert "x.yaml:" in wrong.stderr
    assert "training.epochs" in wrong.stderr
    assert not (project.folder / "experiments").exists()


def test_chaos_only_a_small_file_system_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 30))
    assert fillable(tmp_path / "not" / "there" / "yet") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40))
    assert "1024 GiB" in fillable(tmp_path)
    target = SimpleNamespace(run=SimpleNamespace(root=tmp_path, events=tmp_path / "events.jsonl"))
    with pytest.raises(UnableError, match="1024 GiB"), disk_full(SimpleNamespace(), target, SimpleNamespace(number=1)):
        raise AssertionError("filled")
    assert list(tmp_path.iterdir()) == []


def test_chaos_a_launch_that_cannot_be_is_told_once(project: Project) -> None:
    """Three launches in vain for each of two runs: the reason is the same."""
    (project.folder / "requirements.lock").write_text("not-there==1.0\n")
    project.git("commit", "-qam", "lock")
    done = project.launch("chaos", str(project.config), "--local")
    assert (done.returncode, "Traceback" in done.stderr) == (9, False), done.stdout + done.stderr
    assert "The run does not get to its end even in peace." in done.stderr
    assert done.stderr.count("not-there==1.0 is not installed") == 1, done.stderr
