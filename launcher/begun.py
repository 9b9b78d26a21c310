"""Which commit and image an experiment runs: once it has begun, its own, whatever is checked out by now (R17, R24)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from jobs.contract import Cause, ImagePin
from jobs.rundir import Tree
from launcher import source, tree
from launcher.attempts import attempts
from launcher.errors import ExitCode, fail
from launcher.plan import Source

if TYPE_CHECKING:
    from launcher.config.load import Loaded


def own_source(loaded: "Loaded", code: Source, there: Tree) -> Source:
    """The source of the experiment: `code`, that of now, for one that is new, and the commit that it began at for one that goes on.

    Seeds that have not started run at that commit, too: an experiment is one commit. Where it cannot simply go on, `code` is
    returned, and `tree.check` says why it is refused: uncommitted changes then or now, another config; or a seed that crashed,
    whose next commit is likely to be the fix that it could never get.

    Raises LaunchError (TREE) when this repository does not have that commit."""
    if code.dirty or tree.frozen(there) != loaded.resolved:
        return code
    kept = list(_unfinished(there, loaded.experiment.seeds))
    began = {str(each.get("commit")) for _, each in kept}
    if len(began) != 1 or began == {code.commit} or any(each.get("dirty") for _, each in kept):
        return code
    if any(_crashed(there, seed) for seed, _ in kept):
        return code
    (commit,) = began
    found = source.at(code.repository, commit)
    if found is None:
        what = f"`{there.name}` began at commit {commit}, which this repository does not have."
        hint = "Fetch it, and launch again: git fetch --all. For the code of now, give the config a new name."
        raise fail(ExitCode.TREE, what, where=str(there.root), hint=hint)
    codes = {(each.get("image") or {}).get("code") for _, each in kept}
    return found if codes == {f"git-tree:{found.code_tree}"} else code


def own_pin(there: Tree, seeds: Sequence[int]) -> ImagePin | None:
    """What the unfinished runs of an experiment are pinned to; None for a new one."""
    pins = {ImagePin(**kept["image"]) for _, kept in _unfinished(there, seeds)}
    return pins.pop() if len(pins) == 1 else None


def check_pin(there: Tree, began: ImagePin, made: ImagePin) -> None:
    """That an image that was made anew is the one that the experiment began with. Raises LaunchError (IMAGE)."""
    old, new = (replace(pin, manifest=None) for pin in (began, made))
    if old != new:
        changed = [field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)]
        lines = [f"{name}: {getattr(old, name)} -> {getattr(new, name)}" for name in changed]
        hint = "\n".join(
            [
                *lines,
                "Take it from where it still is: `launch image pull CONFIG`, or `launch image import FILE`.",
                "For the image of now, give the config a new name.",
            ]
        )
        what = f"The image that `{there.name}` began with is not here any more, and what was made anew is another one."
        raise fail(ExitCode.IMAGE, what, where=str(there.root), hint=hint)


def note(experiment: str, code: Source, own: Source) -> str:
    """One line for a person; empty where what is checked out is what runs."""
    if own == code:
        return ""
    return (
        f"{experiment} goes on at commit {own.commit[:12]}, where it began, with the image of then; {code.commit[:12]} is "
        "checked out. For the code of now, give the config a new name."
    )


def _unfinished(there: Tree, seeds: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for seed in seeds:
        run = there.run(seed)
        kept = tree.pinned(run)
        if kept is not None and tree.state_of(run) != "done":
            yield seed, kept


def _crashed(there: Tree, seed: int) -> bool:
    history = attempts(there.run(seed))
    return bool(history) and history[-1].cause == Cause.CRASHED
