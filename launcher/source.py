"""The code as git knows it: the commit, what is not committed, and the exact bytes of a tree. The one door to git."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.plan import Source

if TYPE_CHECKING:
    from git import Repo

SHOWN: Final = 20
"""How many file names a message lists at most."""


def read_source(config: Path, *, allow_dirty: bool, experiments: Path | None = None) -> Source:
    """The source of a launch of `config`. What lies under `experiments` never counts as a change.

    Raises LaunchError (SOURCE) with every reason why the code would not be found again; with `allow_dirty` the changes become
    the source's patch instead."""
    with _plain_words(config):
        repo = _open(config)
        top = Path(str(repo.working_tree_dir)).resolve()
        commit = _head(repo, top)
        changed = _changed(repo, top, experiments)
        untracked = _not_committed(repo, top, config)
        if not changed and not untracked:
            return Source(top, commit, repo.git.rev_parse(f"{commit}^{{tree}}"), None, ())
        if not allow_dirty:
            raise LaunchError(ExitCode.SOURCE, _refusals(changed, untracked))
        tree, patch = _with_changes(repo, top, commit, experiments, untracked)
        return Source(top, commit, tree, patch, tuple(changed or [untracked or ""]))


def at(repository: Path, commit: str) -> Source | None:
    """The source of a commit that is not checked out; None where the repository does not have it."""
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        return None
    with _plain_words(repository):
        git = _repo(repository).git
        tree = git.rev_parse("--verify", "--quiet", f"{commit}^{{tree}}", with_exceptions=False)
    return Source(repository, commit, tree, None, ()) if tree else None


def repository_of(config: Path) -> Path:
    """Top of the work tree that a config lies in. Raises LaunchError (SOURCE)."""
    with _plain_words(config):
        return Path(str(_open(config).working_tree_dir)).resolve()


def read_file(source: Source, path: str) -> bytes | None:
    """A file's bytes as they are in the source's tree; None where it has no such file."""
    with _plain_words(source.repository):
        listed = _repo(source.repository).git.ls_tree("-z", source.code_tree, "--", path)
        if not listed:
            return None
        blob = listed.split("\0")[0].split()[2]
        return _blob(_repo(source.repository), blob)


def export(repository: Path, tree: str, folder: Path) -> None:
    """Write the files of a tree object into an empty folder: exactly its bytes.

    Not `git archive` and not a checkout: both obey attributes (export-ignore, export-subst, line ends, filters), which would make
    other bytes of the same tree. Raises LaunchError (SOURCE) for a submodule, which has no bytes in this repository."""
    with _plain_words(repository):
        repo = _repo(repository)
        for record in repo.git.ls_tree("-r", "-z", "--full-tree", tree).split("\0"):
            if not record:
                continue
            head, name = record.split("\t", 1)
            mode, kind, digest = head.split()
            path = folder / name
            if kind != "blob":
                hint = "Commit its files themselves, or install it through the lock."
                raise fail(ExitCode.SOURCE, "A submodule is not part of the code layer.", where=name, hint=hint)
            path.parent.mkdir(parents=True, exist_ok=True)
            data = _blob(repo, digest)
            if mode == "120000":
                path.symlink_to(os.fsdecode(data))
            else:
                path.write_bytes(data)
                path.chmod(0o755 if mode == "100755" else 0o644)


def _blob(repo: "Repo", digest: str) -> bytes:
    return bytes(repo.odb.stream(bytes.fromhex(digest)).read())


def _repo(folder: Path, *, search: bool = False) -> "Repo":
    if shutil.which("git") is None:
        raise fail(ExitCode.SOURCE, "`git` is not on PATH.", hint="Install it: apt-get install git")
    if "$" in str(folder.resolve()):  # GitPython takes it for a variable, and looks for the repository elsewhere
        hint = "Clone it into a folder without one."
        raise fail(ExitCode.SOURCE, "A repository with `$` in its path cannot be read.", where=str(folder), hint=hint)
    from git import Repo
    from git.exc import InvalidGitRepositoryError, NoSuchPathError

    try:
        return Repo(folder, search_parent_directories=search)
    except (InvalidGitRepositoryError, NoSuchPathError) as error:
        hint = "A run is pinned to a commit:\n    git init && git add -A && git commit -m 'First'"
        raise fail(ExitCode.SOURCE, "Not in a git repository.", where=str(folder), hint=hint) from error


def _open(config: Path) -> "Repo":
    repo = _repo(config.absolute().parent, search=True)
    if repo.bare:
        hint = "Launch from a clone: git clone REPOSITORY"
        raise fail(ExitCode.SOURCE, "A bare repository has no files to launch.", where=str(repo.git_dir), hint=hint)
    repo.git.rev_parse("--git-dir")  # git itself looks at the repository: one of another user's ends here
    return repo


def _head(repo: "Repo", top: Path) -> str:
    if not repo.head.is_valid():
        hint = "A run is pinned to a commit:\n    git add -A && git commit -m 'First'"
        raise fail(ExitCode.SOURCE, "The repository has no commit yet.", where=str(top), hint=hint)
    return str(repo.head.commit.hexsha)


def _excluded(top: Path, experiments: Path | None) -> list[str]:
    if experiments is None or not experiments.resolve().is_relative_to(top):
        return []
    inside = experiments.resolve().relative_to(top)
    return [f":(exclude,top,literal){inside}"] if inside.parts else []


def _changed(repo: "Repo", top: Path, experiments: Path | None) -> list[str]:
    """Files that differ from the commit, new ones that git does not ignore included."""
    arguments = ["--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none", "--", "."]
    text = repo.git(c="core.quotePath=false").status(*arguments, *_excluded(top, experiments))
    return sorted({record[3:] for record in text.split("\0") if record})


def _not_committed(repo: "Repo", top: Path, config: Path) -> str | None:
    """The config's path, when the commit has no such file (it may be ignored, and then no status shows it)."""
    real = config.resolve()
    if not real.is_relative_to(top):
        return str(config)
    inside = str(real.relative_to(top))
    return None if repo.git.ls_tree("--full-tree", "HEAD", "--", inside) else inside


def _refusals(changed: list[str], untracked: str | None) -> list[Problem]:
    problems = []
    if untracked is not None:
        hint = f"    git add -f {_quoted(untracked)} && git commit -m 'Add {Path(untracked).name}'".strip()
        problems.append(Problem("The config is not committed.", untracked, hint))
    others = [name for name in changed if name != untracked]
    if others:
        listed = [f"    {name!r}" if _odd(name) else f"    {name}" for name in others[:SHOWN]]
        listed += [f"    ... and {len(others) - SHOWN} more"] if len(others) > SHOWN else []
        count = "A file is" if len(others) == 1 else f"{len(others)} files are"
        hint = "\n".join(
            [
                *(line.strip() if i == 0 else line for i, line in enumerate(listed)),
                "Commit:          git add -A && git commit",
                "or put it away:  git stash --include-untracked",
                "or try it out:   --allow-dirty keeps the patch with the run and marks it as not reproducible",
            ]
        )
        problems.append(Problem(f"{count} not committed.", "", hint))
    return problems


def _odd(name: str) -> bool:
    return not name.isprintable()


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)


def _with_changes(
    repo: "Repo", top: Path, commit: str, experiments: Path | None, untracked: str | None
) -> tuple[str, bytes]:
    """The tree of the commit plus all changes, and the patch between them, by way of an index of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        env = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        repo.git.read_tree(commit, env=env)
        # git refuses to leave out by name what .gitignore leaves out by itself
        ignored = experiments is not None and bool(_excluded(top, experiments)) and bool(repo.ignored(str(experiments)))
        repo.git.add("--all", "--", str(top), *([] if ignored else _excluded(top, experiments)), env=env)
        if untracked is not None and (top / untracked).exists():
            repo.git.add("--force", "--", str(top / untracked), env=env)
        tree = repo.git.write_tree(env=env)
        options: dict[str, Any] = {"stdout_as_string": False, "strip_newline_in_stdout": False}
        patch = repo.git.diff("--binary", "--full-index", "--no-renames", "--no-ext-diff", commit, tree, **options)
    return tree, patch


@contextmanager
def _plain_words(place: Path) -> Iterator[None]:
    """Git's own failures as ours, with its words as evidence."""
    try:
        yield
    except LaunchError:
        raise
    except Exception as error:
        from git.exc import GitCommandError

        if not isinstance(error, GitCommandError):
            raise
        words = str(error.stderr).removeprefix("\n  stderr: ").strip("' \n")
        if "dubious ownership" in words:
            top = next((p for p in place.absolute().parents if (p / ".git").exists()), place.absolute())
            hint = f"If you trust it: git config --global --add safe.directory {_quoted(str(top))}"
            raise fail(ExitCode.SOURCE, "The repository belongs to another user.", where=str(top), hint=hint) from error
        raise fail(ExitCode.SOURCE, "git failed.", where=str(place), evidence=f"{error.command}\n{words}") from error


def origin(repository: Path) -> str | None:
    """Where the repository was cloned from, without user and password; None where it was not."""
    with _plain_words(repository):
        url = _repo(repository).git.config("--get", "remote.origin.url", with_exceptions=False)
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url) or None
