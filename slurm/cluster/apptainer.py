"""Apptainer for Debian 12, which has none: the package of Debian's unstable with that release's own C library beside it.

Nothing of it is installed: apt fetches it (and checks its signature) with lists of its own, and the programs are told where their
libraries lie. They find their configuration relative to themselves, so that the folder can be anywhere."""

import os
import subprocess
from pathlib import Path

from cluster import cache, debian
from cluster.layout import ClusterError

LIBRARIES = "libraries"
LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
FOR_ALL = 0o666
FORMAT = 1
"""Counts up when the same package is to be laid out in another way."""


def program() -> Path:
    """Path of `apptainer`, fetched if this machine has not done so before. Raises ClusterError."""
    found = cache.kept("apptainer", FORMAT, _fetch)
    return found / "apptainer" / "usr" / "bin" / "apptainer"


def open_fuse() -> None:
    """Let users mount images: everyone may open /dev/fuse, as Debian's own rule for it says. Raises ClusterError."""
    device = Path("/dev/fuse")
    try:
        if device.stat().st_mode & FOR_ALL != FOR_ALL:
            device.chmod(FOR_ALL)
        os.close(os.open(device, os.O_RDWR))
    except OSError as error:
        cure = f"Load it (modprobe fuse), or give it to this container (--device {device})."
        raise ClusterError(f"{device}: {error.strerror}. Apptainer needs it. {cure}") from error


def _fetch(folder: Path, place_of: cache.Place) -> str:
    """Lay out folder/apptainer and folder/libraries, to be used from its later place. Returns the version."""
    print("fetching Apptainer from Debian's unstable ...", flush=True)
    apt = _Apt(folder / "apt")
    needed = apt.libraries("apptainer")
    apt.download("apptainer", *needed)
    for package in ("apptainer", *needed):
        (found,) = apt.folder.glob(f"{package}_*.deb")
        _do("dpkg", "-x", str(found), str(folder / ("apptainer" if package == "apptainer" else LIBRARIES)))
    version = _do("dpkg-deb", "-f", str(next(apt.folder.glob("apptainer_*.deb"))), "Version").strip()
    _do("rm", "-r", str(apt.folder))
    usr = folder / "apptainer" / "usr"
    _configure(usr)
    _point(usr, place_of(version) / LIBRARIES)
    # not by its name: the loader lies where the folder is now, not where the program looks for it
    shown = _do(str(folder / LIBRARIES / LOADER), str(usr / "bin" / "apptainer"), "--version")
    if "apptainer version" not in shown:
        raise ClusterError(f"Apptainer of Debian's unstable does not start here: {shown.strip()}")
    return version


class _Apt:
    """apt-get with unstable as its only source, and with lists and downloads in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        source = f"deb [signed-by={debian.KEYRING}] {debian.mirror()} unstable main\n"
        (folder / "sources.list").write_text(source, encoding="utf-8")
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "root",  # the folder is not open to apt's own user
        }
        self.options = [f"-o{name}={value}" for name, value in settings.items()]
        _do("apt-get", *self.options, "-q", "update", "--error-on=any")

    def libraries(self, package: str) -> list[str]:
        """The libraries that it needs directly; those below them are the same as this system's, or part of libc6."""
        shown = _do("apt-cache", *self.options, "depends", "--important", package)
        words = [line.split() for line in shown.splitlines()]
        found = sorted({line[1] for line in words if line[0] == "Depends:" and line[1].startswith("lib")})
        if "libc6" not in found:
            raise ClusterError(f"{package} of Debian's unstable needs other libraries than expected:\n{shown}")
        return found

    def download(self, *packages: str) -> None:
        _do("apt-get", *self.options, "-q", "download", *packages, cwd=self.folder)


def _configure(usr: Path) -> None:
    """Configuration and state where a program that was moved looks for them: beside itself, the starter one folder deeper."""
    for name in ("etc", "var"):
        (usr.parent / name).rename(usr / name)
        (usr / "lib" / name).symlink_to(f"../{name}")
    (usr / "etc" / "apptainer" / "capability.json").touch()
    (usr / "var" / "lib" / "apptainer" / "mnt" / "session").mkdir(parents=True, exist_ok=True)
    conf = usr / "etc" / "apptainer" / "apptainer.conf"
    text = conf.read_text(encoding="utf-8")
    # as root it would ask for all capabilities, more than a container may have to give
    wanted = text.replace("\nroot default capabilities = full\n", "\nroot default capabilities = no\n")
    if wanted == text:
        raise ClusterError(
            "apptainer.conf of Debian's unstable has no line `root default capabilities = full` to change."
        )
    conf.write_text(wanted, encoding="utf-8")


def _point(usr: Path, libraries: Path) -> None:
    """Make the programs use those libraries and their loader; the kernel takes a loader by its absolute path only."""
    for program in (usr / "bin/apptainer", usr / "lib/x86_64-linux-gnu/apptainer/bin/starter"):
        near = os.path.relpath((usr.parent.parent / LIBRARIES / LOADER).parent, program.parent)
        _do("patchelf", "--set-interpreter", str(libraries / LOADER), str(program))
        _do("patchelf", "--force-rpath", "--set-rpath", f"$ORIGIN/{near}", str(program))


def _do(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=cwd)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(argv)}` failed with {done.returncode}:\n{tail}")
    return done.stdout
