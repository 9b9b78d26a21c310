"""What a store holds, who uses it, and that nothing goes which somebody needs."""

import json
import time
from pathlib import Path

import pytest
from project import JOB, Project, make_project

from launcher import roots
from launcher.errors import ExitCode
from launcher.image import library, listing
from launcher.store import Stored, locked, remove, size

DAY = 86400


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project", job=JOB.replace("STEPS", "3"))


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = time.time() + days * DAY
    monkeypatch.setattr(library.time, "time", lambda: now)


def names(found: tuple[Stored, ...]) -> list[tuple[str, str]]:
    return sorted((item.kind, item.name) for item in found)


def everything(project: Project) -> list[tuple[str, str]]:
    return names(tuple(shelf.stored for shelf in library.shelves(project.store, None)))


def test_the_store_of_a_launch(project: Project) -> None:
    assert project.launch("configs/x.yaml").returncode == ExitCode.OK
    done = project.launch("image", "ls", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    value = json.loads(done.stdout)
    assert [item["kind"] for item in value["stored"]] == ["code", "lock", "launcher"]
    for item in value["stored"]:
        assert [use["experiment"] for use in item["used_by"]] == ["tiny"]
        assert item["bytes"] > 0
    code = project.store / "code" / project.git("rev-parse", "HEAD^{tree}").strip()
    files = sum(path.stat().st_size for path in code.rglob("*") if path.is_file())
    assert value["stored"][0]["bytes"] == files
    text = project.launch("image", "ls").stdout
    assert "code (host)" in text
    assert "tiny" in text
    assert text.splitlines()[-1].endswith(str(project.store))


def test_an_unfinished_experiment_keeps_what_it_uses_for_ever(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that nobody named to who tidies up: the store knows it."""
    assert project.launch("configs/x.yaml", HF_ENDPOINT="break").returncode == ExitCode.RUN
    before = everything(project)
    later(monkeypatch, 1000)
    found = library.prune(project.store, None, 30 * DAY, dry=False)
    assert found.removed == ()
    assert names(tuple(shelf.stored for shelf in found.kept)) == before
    assert "used by tiny" in listing.pruned_text(found, dry=False)
    assert project.launch("configs/x.yaml").returncode == ExitCode.OK


def test_what_is_done_goes_when_it_is_old(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.launch("configs/x.yaml")
    before = everything(project)
    assert library.prune(project.store, None, 30 * DAY, dry=False).removed == ()
    later(monkeypatch, 29)
    assert library.prune(project.store, None, 30 * DAY, dry=False).removed == ()
    later(monkeypatch, 31)
    dry = library.prune(project.store, None, 30 * DAY, dry=True)
    assert names(dry.removed) == before == everything(project)
    wet = library.prune(project.store, None, 30 * DAY, dry=False)
    assert names(wet.removed) == before
    assert wet.freed == dry.freed > 0
    assert everything(project) == []
    assert not list(project.store.rglob("*.tmp"))
    project.edit("name: tiny", "name: tiny2")
    assert project.launch("configs/x.yaml").returncode == ExitCode.OK


def test_a_run_that_ended_a_moment_ago_still_has_its_job(project: Project) -> None:
    project.launch("configs/x.yaml")
    found = library.prune(project.store, None, 0, dry=False)
    assert found.removed == ()
    assert len(found.kept) == 3


def test_a_tree_that_was_removed_needs_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.launch("configs/x.yaml", HF_ENDPOINT="break")
    project.tree.root.rename(project.folder / "elsewhere")
    later(monkeypatch, 31)
    assert len(library.prune(project.store, None, 30 * DAY, dry=False).removed) == 3
    assert roots.registered(project.store) == []


def test_a_file_system_that_is_away_keeps_what_its_trees_used(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.launch("configs/x.yaml", HF_ENDPOINT="break")
    (project.folder / "experiments").rename(project.folder / "elsewhere")
    later(monkeypatch, 31)
    found = library.prune(project.store, None, 30 * DAY, dry=False)
    assert {shelf.stored.kind for shelf in found.kept} == {"code", "lock"}
    assert len(roots.registered(project.store)) == 1


def test_a_tree_that_cannot_be_read_keeps_what_it_used(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.launch("configs/x.yaml")
    specification = project.tree.run(0).specification
    specification.chmod(0o644)
    specification.write_text("{")
    later(monkeypatch, 31)
    found = library.prune(project.store, None, 30 * DAY, dry=False)
    assert {shelf.stored.kind for shelf in found.kept} == {"code", "lock"}


def test_what_is_being_made_or_was_just_taken_up_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.launch("configs/x.yaml")
    tree = project.git("rev-parse", "HEAD^{tree}").strip()
    later(monkeypatch, 31)
    with locked(project.store, tree):
        found = library.prune(project.store, None, 30 * DAY, dry=False)
    (kept,) = found.kept
    assert kept.stored.name == tree
    assert "in use at this moment" in listing.pruned_text(found, dry=False)
    (item,) = (shelf.stored for shelf in library.shelves(project.store, None))
    monkeypatch.undo()
    roots.register(project.store, project.folder / "experiments" / "other", item.names)
    assert not library._take(item, project.store, None)


def test_what_a_killed_builder_left_goes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    left = project.store / "blobs" / ".making.x.tmp"
    left.mkdir(parents=True)
    (left / "new.sif").write_bytes(b"x" * 100)
    assert library.shelves(project.store, None) == []
    later(monkeypatch, 2)
    assert library.prune(project.store, None, 30 * DAY, dry=False).freed == 100
    assert not left.exists()


def test_what_cannot_be_removed_is_named_and_the_rest_goes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.launch("configs/x.yaml")
    later(monkeypatch, 31)

    def stubborn(path: Path) -> None:
        if path.suffix == ".lock":
            raise PermissionError(13, "Permission denied", str(path))
        remove(path)

    monkeypatch.setattr(library, "remove", stubborn)
    found = library.prune(project.store, None, 30 * DAY, dry=False)
    assert {item.kind for item in found.removed} == {"code", "launcher"}
    assert "Permission denied" in str(found.failed[0])


def test_bad_input_is_refused(project: Project) -> None:
    for argv in (
        ["prune", "--older", "soon"],
        ["prune", "--older", "-1d"],
        ["ls", "x"],
        ["import", "nowhere"],
        ["bulid"],
    ):
        done = project.launch("image", *argv)
        assert done.returncode == ExitCode.USAGE, argv
        assert "Traceback" not in done.stderr
        assert "launch image" in done.stderr
    done = project.launch("image", "export", "configs/x.yaml", "x.image")
    assert done.returncode == ExitCode.IMAGE
    assert "make setup" in done.stderr
    done = project.launch("image", "push", "configs/x.yaml", "--engine", "apptainer")
    assert done.returncode in {ExitCode.IMAGE, ExitCode.SOURCE}
    assert "Nothing to remove" in project.launch("image", "prune").stdout
    assert "The store is empty" in project.launch("image", "ls").stdout


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_sizes_for_people(count: int | None, text: str) -> None:
    assert listing.size(count) == text


def test_ages_for_people() -> None:
    spans = (0, 61, 2 * 3600, 86400, 5.5 * 86400, 800 * 86400)
    assert [listing.age(span) for span in spans] == ["now", "1 minute", "2 hours", "1 day", "5 days", "2 years"]


def test_removing_is_all_or_nothing_to_who_looks(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("x" * 10)
    (folder / "link").symlink_to("/etc")
    (folder / "sub").chmod(0o500)
    assert size(folder) == 10 + len("/etc")
    remove(folder)
    assert list(tmp_path.iterdir()) == []
    remove(tmp_path / "never")
