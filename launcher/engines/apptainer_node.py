"""How an image is checked and started on a node, and what an attempt left there. Standard library only at import."""

import contextlib
import fcntl
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Final

from jobs.contract import ImagePin
from launcher import verified
from launcher.engines import Command, NodeOptions, Start, apptainer_cache
from launcher.engines.apptainer_program import bundled, environment, health, mount, program, settings
from launcher.engines.contained import CODE, variables
from launcher.errors import Problem
from launcher.store import blob_path

SIF: Final = ".sif"
LAYER: Final = ".sqfs"
KEEPER: Final = Path("/samebits/keeper")
"""Where the container's first process is, and the socket to its keeper."""
SHIELD: Final = """\
#!/bin/sh
# Slurm signals every process of a step. What serves the image must outlive the run that saves: libfuse leaves a signal alone
# that is ignored already.
trap '' HUP INT TERM USR1 USR2
exec {program} "$@"
"""
SERVERS: Final = ("squashfuse_ll", "squashfuse", "fuse2fs", "fuse-overlayfs")
STARTING_SECONDS: Final = 60
"""A folder without a keeper that is younger than this belongs to one that is just starting."""


def verify(pin: ImagePin, node: NodeOptions) -> list[Problem]:
    """Compare the SIF and the code's layer with the pin: by a stamp where nothing about the files has changed, else by reading
    them. Where the site has a cache on the node, copies of them are used from now on."""
    problems = health()
    for what, digest, suffix in _parts(pin):
        path = blob_path(node.store, digest, suffix)
        try:
            if node.cache is not None and apptainer_cache.copied(path, digest, node.cache):
                continue
            found = verified.digest(path)
        except FileNotFoundError:
            hint = "Make it anew, or bring it here: launch image build CONFIG; launch image import FILE"
            problems.append(Problem(f"{what} is not in the store.", str(path), hint))
        except OSError as error:
            problems.append(Problem(f"{what} cannot be read: {error.strerror}.", str(path)))
        else:
            if found != digest:
                hint = f"Something changed it. Remove it, then make it anew:\nrm -f '{path}'\nlaunch image build CONFIG"
                problems.append(Problem(f"{what} has {found}; the run is pinned to {digest}.", str(path), hint))
    return problems


def _parts(pin: ImagePin) -> list[tuple[str, str, str]]:
    return [("The environment's SIF", pin.environment, SIF), ("The code's layer", str(pin.layer), LAYER)]


def command(pin: ImagePin, node: NodeOptions, start: Start) -> Command:
    """The keeper, and through it Apptainer: see apptainer_keeper.py. All that both need lies in a folder of this start alone, which
    the keeper removes. The run's variables reach it over a socket: they stand in no command line and in no file."""
    sif, layer = (apptainer_cache.place(node, digest, suffix) for _, digest, suffix in _parts(pin))
    folder = Path(tempfile.mkdtemp(prefix=_prefix(start.run_id)))
    for name in ("keeper", "shield", "work", "home"):
        (folder / name).mkdir()
    here = files("launcher.engines")
    (folder / "keeper.py").write_text(
        here.joinpath("apptainer_keeper.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    inner = here.joinpath("apptainer_inner.py").read_text(encoding="utf-8")
    (folder / "keeper" / "inner.py").write_text(inner, encoding="utf-8")
    (folder / "hosts").write_text(_hosts(), encoding="ascii")
    shielded = _shield(folder)
    argv = [program(), "--silent", *shielded, "exec", "--cleanenv", "--contain", "--no-home", "--no-eval"]
    argv += [
        "--no-mount",
        "home,cwd,hostfs,bind-paths",
        "--pid",
        "--no-init",
        "--ipc",
        "--workdir",
        str(folder / "work"),
    ]
    argv += ["--net", "--network", "none"] if start.network == "none" else []
    argv += ["--nv"] if start.allocation.gpus else []
    argv += mount(layer, CODE, "image-src=/", "ro")
    argv += mount(folder / "keeper", KEEPER, "ro")
    argv += mount(folder / "hosts" if start.network == "none" else Path("/etc/hosts"), Path("/etc/hosts"), "ro")
    for path, mode in start.mounts.items():
        argv += mount(path, path, mode)
    argv += [str(sif), "python", "-I", "-S", str(KEEPER / "inner.py")]
    message = {
        "argv": argv,
        "environment": environment(PATH=f"{folder / 'shield'}:{environment()['PATH']}", HOME=str(folder / "home")),
        "run": {
            "arguments": list(start.arguments),
            "environment": {**variables(start), **start.env},
            "folder": str(CODE),
            "driver": bool(start.allocation.gpus),
        },
    }
    keeper = (sys.executable, "-I", "-S", str(folder / "keeper.py"))
    return Command(keeper, {"LANG": "C.UTF-8", "SAMEBITS_START": json.dumps(message)}, folder)


def _prefix(run_id: str) -> str:
    """Of a run's folders on this machine. A socket's path may have 107 characters only, so the name is cut."""
    return f"samebits-run-{os.getuid()}-{run_id[:24]}-"


def _hosts() -> str:
    """Without a network there is no name service: the two names that libraries ask for."""
    return f"127.0.0.1 localhost {platform.node()}\n::1 localhost\n"


def _shield(folder: Path) -> list[str]:
    """Put a program of the same name before each FUSE server. Returns the options by which Apptainer finds them first."""
    own = bundled()
    for name in SERVERS:
        found = shutil.which(name, path=f"{own}:{environment()['PATH']}")
        if found is not None:
            path = folder / "shield" / name
            path.write_text(SHIELD.format(program=shlex.quote(found)), encoding="utf-8")
            path.chmod(0o700)
    if not any((own / name).exists() for name in SERVERS) or settings().get("APPTAINER_SUID_INSTALL") == "1":
        return []
    # Its own helpers come before PATH, whatever that says, but not before what its configuration puts in front.
    text = Path(settings()["APPTAINER_CONF_FILE"]).read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if not line.startswith("binary path")]
    asked = [line.partition("=")[2].strip() for line in text.splitlines() if line.startswith("binary path")]
    rest = asked[-1] if asked else "$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    (folder / "apptainer.conf").write_text(
        "\n".join([*lines, f"binary path = {folder / 'shield'}:{rest}", ""]), encoding="utf-8"
    )
    return ["--config", str(folder / "apptainer.conf")]


def clean(run_id: str) -> None:
    """End and remove what starts left behind on this machine whose keeper is gone: of this run, and of this user's others."""
    del run_id
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix('')[:-1]}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and _abandoned(folder):
                _end(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    """Whether no keeper holds it. One that is killed lets go of it in the same moment."""
    lock = folder / "lock"
    if not lock.exists():
        return time.time() - folder.lstat().st_mtime > STARTING_SECONDS
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return bool(file.read(1)) or time.time() - folder.lstat().st_mtime > STARTING_SECONDS


def _end(folder: Path) -> None:
    """What is left of the session that the keeper led. While it has a process its number is nobody else's; who leads one of that
    number now is another."""
    try:
        session = int((folder / "lock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    if Path(f"/proc/{session}").exists():
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "stat").read_bytes().rpartition(b")")[2].split()[3] == b"%d" % session:
                    os.kill(int(entry.name), signal.SIGKILL)
