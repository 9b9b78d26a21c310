"""What the user works with: a clone of this repository, and a virtual environment that the user can execute."""

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cluster import user
from cluster.layout import REPOSITORY, ClusterError, Layout

PLACED = "refs/samebits/placed"
"""In the clone: the commit that was put there last. A HEAD elsewhere is the user's own work and stays."""


def home(layout: Layout, account: pwd.struct_passwd) -> None:
    layout.home.mkdir(mode=0o755, exist_ok=True)
    os.chown(layout.home, account.pw_uid, account.pw_gid)


def clone(layout: Layout, account: pwd.struct_passwd, *, work_tree: bool) -> str:
    """Bring the clone to this repository's HEAD, or to its work tree as it stands. Returns what to tell, empty if nothing.

    What the user committed or changed there is never overwritten. Raises ClusterError."""
    if not work_tree and _placed(layout, account) == _git("rev-parse", "HEAD"):
        return ""
    if layout.project.exists():
        own = _own_work(layout, account)
        if own:
            return f"{layout.project} {own}, so it stays as it is and does not follow {REPOSITORY}."
    with tempfile.TemporaryDirectory(dir=layout.root, prefix="clone-") as folder:
        copy = Path(folder) / "copy"
        _git("clone", "--quiet", "--no-hardlinks", "--no-checkout", str(REPOSITORY), str(copy))
        if work_tree:
            _snapshot(copy)
        _give(Path(folder), account)
        for argv in (
            ["init", "--quiet", "--initial-branch=main", str(layout.project)],
            ["-C", str(layout.project), "fetch", "--quiet", "--update-shallow", str(copy), "HEAD"],
            ["-C", str(layout.project), "reset", "--quiet", "--hard", "FETCH_HEAD"],
            ["-C", str(layout.project), "update-ref", PLACED, "HEAD"],
            ["-C", str(layout.project), "config", "user.name", account.pw_name],
            ["-C", str(layout.project), "config", "user.email", f"{account.pw_name}@localhost"],
        ):
            done = user.run(layout, account, ["git", *argv])
            if done.returncode != 0:
                raise ClusterError(f"as {account.pw_name}: git {' '.join(argv)} failed: {done.stderr.strip()}")
    # what sbatch leaves where it was called from must not make the work tree look changed
    user.run(layout, account, ["tee", str(layout.project / ".git" / "info" / "exclude")], given="slurm-*.out\n")
    return ""


def _placed(layout: Layout, account: pwd.struct_passwd) -> str:
    done = user.run(layout, account, ["git", "-C", str(layout.project), "rev-parse", "--quiet", "--verify", PLACED])
    return done.stdout.strip()


def _own_work(layout: Layout, account: pwd.struct_passwd) -> str:
    """What the user did in the clone, as the end of a sentence; empty if nothing."""
    here = ["git", "-C", str(layout.project)]
    if user.run(layout, account, [*here, "status", "--porcelain", "--untracked-files=no"]).stdout.strip():
        return "has changes that are not committed"
    head = user.run(layout, account, [*here, "rev-parse", "--quiet", "--verify", "HEAD"]).stdout.strip()
    return "has commits of its own" if head and head != _placed(layout, account) else ""


def _snapshot(copy: Path) -> None:
    """Commit the repository's work tree, new files included, into a clone of it; the repository itself is not touched."""
    here = [f"--git-dir={copy}/.git", f"--work-tree={REPOSITORY}"]
    _git(*here, "read-tree", "HEAD")
    _git(*here, "add", "--all", ":/")
    _git(*here, "-c", "user.name=testcluster", "-c", "user.email=testcluster@localhost", "commit", "--quiet", "--allow-empty",
         "--no-verify", "-m", "The work tree, as it stands")  # fmt: skip


def _git(*argv: str) -> str:
    """Git on this repository, whoever owns it: git refuses another user's repository unless a global config allows it."""
    with tempfile.NamedTemporaryFile("w", suffix=".gitconfig") as allowed:
        allowed.write("[safe]\n\tdirectory = *\n")
        allowed.flush()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": allowed.name, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(
            ["git", *argv],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode != 0:
        raise ClusterError(f"git {' '.join(argv)} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def _give(folder: Path, account: pwd.struct_passwd) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def environment(layout: Layout, account: pwd.struct_passwd) -> str:
    """Make the user's virtual environment: a thin one, whose packages are the repository's .venv and whose code is the clone.

    Where the user cannot reach the repository's .venv, its packages are copied, once per set of packages. Returns what to tell."""
    source = REPOSITORY / ".venv"
    packages = next(iter(sorted(source.glob("lib/python3*/site-packages"))), None)
    if packages is None:
        return f"There is no {source}: `make setup` makes it, and then `slurm/testcluster run` has a `launch` command."
    identity = _identity(packages)
    stamp = layout.environment / "made-from"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == identity:
        return ""
    python = _python(layout, account, source)

    def serve(folder: Path) -> bool:
        program = f"import sys; sys.path.insert(0, {str(folder)!r}); import pydantic, yaml"
        return _works(layout, account, [python, "-I", "-c", program])

    if not serve(packages):
        packages = _within_reach(layout, packages, identity, serve)
    shutil.rmtree(layout.environment, ignore_errors=True)
    subprocess.run(
        [python, "-m", "venv", "--without-pip", str(layout.environment)], check=True, stdin=subprocess.DEVNULL
    )
    (own,) = layout.environment.glob("lib/python3*/site-packages")
    (own / "samebits.pth").write_text(f"{layout.project}\n{packages}\n", encoding="utf-8")
    _scripts(source / "bin", layout.environment / "bin")
    stamp.write_text(identity, encoding="utf-8")
    return ""


def _identity(packages: Path) -> str:
    """Of the set of installed packages; changes when one is added, removed or updated."""
    names = sorted(path.name for path in packages.glob("*.dist-info"))
    return hashlib.sha256("\n".join([str(packages), *names]).encode()).hexdigest()


def _python(layout: Layout, account: pwd.struct_passwd, source: Path) -> str:
    """An interpreter of the .venv's version that the user may execute. Raises ClusterError."""
    link = source / "bin" / "python3"
    version = next(iter(sorted(source.glob("lib/python3*")))).name
    for candidate in (str(link.resolve()), f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if _works(layout, account, [candidate, "-I", "-c", "import venv"]):
            return candidate
    msg = f"{account.pw_name} cannot execute {link.resolve()}, nor is there a /usr/bin/{version} with venv. Make .venv again with a"
    raise ClusterError(f"{msg} Python that all users can execute: rm -r .venv && make setup PYTHON=/usr/bin/python3")


def _works(layout: Layout, account: pwd.struct_passwd, argv: list[str]) -> bool:
    try:
        return user.run(layout, account, argv).returncode == 0
    except OSError:
        return False


def _within_reach(layout: Layout, packages: Path, identity: str, serve: Callable[[Path], bool]) -> Path:
    """The same packages under the root: as further names of the same files if possible, which takes no space and little time."""
    # By this name a run knows that it is an environment's own packages, not a work tree's.
    target = layout.root / f"packages-{identity[:16]}" / "site-packages"
    if target.exists() and serve(target):
        return target
    for old in layout.root.glob("packages-*"):
        shutil.rmtree(old)
    target.parent.mkdir(mode=0o755)
    linked = subprocess.run(
        ["cp", "-al", str(packages), str(target)], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if linked.returncode != 0 or not serve(target):
        print(f"copying {packages}, which the user cannot reach ...", file=sys.stderr, flush=True)
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(packages), str(target)], check=True, stdin=subprocess.DEVNULL)
        subprocess.run(["chmod", "-R", "a+rX", str(target)], check=True, stdin=subprocess.DEVNULL)
    return target


def _scripts(source: Path, target: Path) -> None:
    """The commands of the repository's environment, for the interpreter of the user's."""
    for script in sorted(source.iterdir()):
        if not script.is_file() or script.is_symlink() or (target / script.name).exists():
            continue
        with script.open("rb") as file:
            head = file.readline(256)
            if not (head.startswith(b"#!") and b"python" in head):
                continue
            body = file.read()
        copy = target / script.name
        copy.write_bytes(f"#!{target}/python\n".encode() + body)
        copy.chmod(0o755)
