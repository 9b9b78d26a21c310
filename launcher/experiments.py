"""Where the trees are, and the one of a given name."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.rundir import Tree
from launcher.errors import ExitCode, fail

if TYPE_CHECKING:
    from launcher.site import Site


def experiments_folder(flag: Path | None, site: "Site", repository: Path) -> Path:
    """The folder of all trees, absolute: the flag's, else the site's, else the repository's `experiments`."""
    return (flag or site.experiments or repository / "experiments").absolute()


def existing_folder(flag: Path | None) -> Path:
    """The same for commands that only look: without git; outside a repository, `experiments` of the working directory.

    Raises LaunchError when the site's profile is broken, NOT_FOUND when there is no such folder."""
    if flag is not None:
        folder = flag.absolute()
    else:
        from launcher.site import load_site

        top = repository_of(Path.cwd())
        folder = experiments_folder(None, load_site(None, top), top)
    if not folder.is_dir():
        hint = "Nothing was launched from here yet; `--experiments DIR` names another folder."
        raise fail(ExitCode.NOT_FOUND, "No such folder of experiments.", where=str(folder), hint=hint)
    return folder


def repository_of(folder: Path) -> Path:
    """The top of the work tree that a folder is in; the folder itself where there is none."""
    return next((top for top in (folder, *folder.parents) if (top / ".git").exists()), folder)


def existing_tree(flag: Path | None, name: str) -> Tree:
    """The tree of an experiment, by its name or, as a shell completes it, the path of its folder. Raises NOT_FOUND."""
    folder = existing_folder(flag or (Path(name).parent if "/" in name.rstrip("/") else None))
    wanted = Path(name).name
    if wanted not in ("", ".", "..") and (folder / wanted / "config.yaml").is_file():
        return Tree(folder / wanted)
    names = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
    near = difflib.get_close_matches(wanted, names, 1)
    hint = f"Did you mean {near[0]}?" if near else f"There: {', '.join(names[-8:])}." if names else "It holds none."
    raise fail(ExitCode.NOT_FOUND, f"No experiment `{name}`.", where=str(folder), hint=hint)


def is_default(folder: Path, repository: Path) -> bool:
    """Whether a name alone finds the trees of this folder, from inside the repository."""
    return folder.resolve() == (repository / "experiments").resolve()
