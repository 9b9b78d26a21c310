"""Apptainer for Debian 12, which has none: the package of Debian's unstable with that release's own C library beside it.

Nothing of it is installed: apt fetches it (and checks its signature) with lists of its own, and the programs are told where their
libraries lie. They find their configuration relative to themselves, so that the folder can be anywhere."""

import os
from pathlib import Path

from cluster import cache
from cluster.apt import Apt, do
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
    apt = Apt(folder / "apt", "unstable")
    needed = apt.libraries("apptainer")
    apt.download("apptainer", *needed)
    for package in ("apptainer", *needed):
        (found,) = apt.folder.glob(f"{package}_*.deb")
        do("dpkg", "-x", str(found), str(folder / ("apptainer" if package == "apptainer" else LIBRARIES)))
    version = do("dpkg-deb", "-f", str(next(apt.folder.glob("apptainer_*.deb"))), "Version").strip()
    do("rm", "-r", str(apt.folder))
    usr = folder / "apptainer" / "usr"
    _configure(usr)
    _point(usr, place_of(version) / LIBRARIES)
    # not by its name: the loader lies where the folder is now, not where the program looks for it
    shown = do(str(folder / LIBRARIES / LOADER), str(usr / "bin" / "apptainer"), "--version")
    if "apptainer version" not in shown:
        raise ClusterError(f"Apptainer of Debian's unstable does not start here: {shown.strip()}")
    return version


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
        do("patchelf", "--set-interpreter", str(libraries / LOADER), str(program))
        do("patchelf", "--force-rpath", "--set-rpath", f"$ORIGIN/{near}", str(program))
