"""Opening an experiment's tree: config and specifications are written once, and the same again goes on (R17, R22, R24)."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from jobs.contract import ImagePin
from jobs.files import publish, sync_folder
from jobs.rundir import RunDir, Tree
from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.plan import Plan

READ_ONLY: Final = 0o444
SHOWN: Final = 20


def state_of(run: RunDir) -> str:
    """`done`, `unfinished` or `new`."""
    if run.done.exists():
        return "done"
    return "unfinished" if run.attempts() else "new"


def frozen(tree: Tree) -> str | None:
    """Text of the tree's config.yaml; None for a new experiment.

    Raises LaunchError (TREE) when the name is taken by something else."""
    try:
        return tree.config.read_text(encoding="utf-8")
    except FileNotFoundError:
        if tree.root.is_dir() and any(
            path.name not in _OURS and not path.name.startswith(".") for path in tree.root.iterdir()
        ):
            hint = "Take another name, or another folder with --experiments."
            raise fail(ExitCode.TREE, "This folder is not an experiment's.", where=str(tree.root), hint=hint) from None
        return None
    except NotADirectoryError:
        hint = "Take another name, or move it away."
        raise fail(ExitCode.TREE, "This is not a folder.", where=str(tree.root), hint=hint) from None


_OURS: Final = frozenset({"config.yaml", "checkpoints", "logs", "metrics", "artifacts"})


def _is_foreign(name: str) -> bool:
    """Another launcher may be at work in the folder right now: its temporary files, and the config it just published, are ours."""
    return name not in _OURS and not name.startswith(".")


def pinned(run: RunDir) -> dict[str, Any] | None:
    """A seed's run.json; None when it has none. Raises LaunchError (TREE) when it cannot be read."""
    try:
        value = json.loads(run.specification.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(run.specification, f"It is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise _damaged(run.specification, "It is not a specification.")
    return value


def _damaged(path: Path, what: str) -> LaunchError:
    hint = "Something changed it by hand. Restore it from a backup, or take a new name for a new experiment."
    return fail(ExitCode.TREE, what, where=str(path), hint=hint)


def check(plan: Plan, tree: Tree) -> None:
    """That an existing tree is this experiment: the same config, the same code, untouched. Raises LaunchError (TREE) with all
    that differs."""
    there = frozen(tree)
    if there is None:
        return
    if there != plan.config_text:
        raise LaunchError(ExitCode.TREE, [_other_config(plan, tree, there)])
    digest = hashlib.sha256(there.encode()).hexdigest()
    problems: list[Problem] = []
    for wanted in plan.runs:
        path, kept = tree.run(wanted.seed).specification, pinned(tree.run(wanted.seed))
        if kept is None:
            continue
        if kept.get("config_sha256") != digest:
            problems.append(Problem("It was made from another config.yaml than the one that stands here.", str(path)))
        elif wanted.state != "done" and (problem := _other_code(plan, path, kept)):
            problems.append(problem)
    if problems:
        raise LaunchError(ExitCode.TREE, problems[:1] if len({p.what for p in problems}) == 1 else problems)


def _other_config(plan: Plan, tree: Tree, there: str) -> Problem:
    lines = list(differences(there, plan.config_text))
    shown = lines[:SHOWN] + ([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
    hint = "\n".join([*shown, "A config is never changed after its experiment started: give it a new name."])
    return Problem(f"The experiment `{tree.name}` exists with another config.", str(plan.config_file), hint)


def differences(old: str, new: str) -> Iterator[str]:
    """`path.to.key: before -> after`, one line per value that differs between two configs."""
    from launcher.config import document

    before, after = (dict(_flat(document.read(text).value)) for text in (old, new))
    for key in [*before, *(key for key in after if key not in before)]:
        if before.get(key, _NONE) != after.get(key, _NONE):
            yield f"{key}: {_word(before.get(key, _NONE))} -> {_word(after.get(key, _NONE))}"


_NONE: Final = object()


def _word(value: Any) -> str:
    return "(not there)" if value is _NONE else json.dumps(value, default=str)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _flat(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _other_code(plan: Plan, path: Path, kept: Mapping[str, Any]) -> Problem | None:
    """R24: a run goes on with the code it began with, or not at all."""
    code = (kept.get("image") or {}).get("code")
    if code == f"git-tree:{plan.source.code_tree}" and kept.get("commit") == plan.source.commit:
        return None
    began = str(kept.get("commit"))
    here = plan.source.commit
    if kept.get("dirty") or plan.source.dirty:
        what = f"`{plan.experiment}` was started with other code, with uncommitted changes."
        return Problem(what, str(path), "Commit what you have, and give the config a new name.")
    hint = f"To go on with it:    git switch --detach {began}\nFor the code of now:  give the config a new name."
    return Problem(f"`{plan.experiment}` was started at commit {began[:12]}; this is {here[:12]}.", str(path), hint)


def open_tree(plan: Plan, pin: ImagePin) -> Tree:
    """Make the tree, or find it as it must be. Each file appears whole; what a failure leaves, the next launch continues.

    Raises LaunchError (TREE), and OSError for a file system that does not take it."""
    tree = Tree(plan.tree)
    tree.root.parent.mkdir(parents=True, exist_ok=True)
    made = _claim(plan, tree)
    if not made:
        check(plan, tree)
    for folder in (*tree.folders, *(part for run in plan.runs for part in tree.run(run.seed).folders)):
        folder.mkdir(parents=True, exist_ok=True)
    if plan.source.patch is not None and not tree.patch.exists():
        publish(tree.patch, plan.source.patch, READ_ONLY)
    for wanted in plan.runs:
        path = tree.run(wanted.seed).specification
        if not path.exists():
            value = json.loads(wanted.specification) | {"image": asdict(pin)}
            _exclusively(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
    check(plan, tree)
    return tree


def _claim(plan: Plan, tree: Tree) -> bool:
    """Take the name. True when config.yaml is ours: of launchers that come at once, one writes it and the others compare."""
    if frozen(tree) is not None:
        return False
    tree.root.mkdir(exist_ok=True)
    try:
        made = _exclusively(tree.config, plan.config_text.encode())
    except OSError:
        # An empty folder is not an experiment; one that holds something is another launcher's by now.
        with contextlib.suppress(OSError):
            tree.root.rmdir()
        raise
    return made


def _exclusively(path: Path, data: bytes) -> bool:
    """Publish a read-only file unless it is there. Whole or not at all: linked to its name when it is complete."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(READ_ONLY)
        try:
            os.link(name, path)
        except FileExistsError:
            return False
    finally:
        Path(name).unlink(missing_ok=True)
    sync_folder(path.parent)
    return True
