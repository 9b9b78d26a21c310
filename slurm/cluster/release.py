"""Another version of Slurm than Debian 12's: the packages of Debian 13 with that release's own C library beside them.

Nothing of it is installed, and there is no chroot: only Slurm's own programs use those libraries, so that jobs see the machine's
files as they do with the other version."""

import shutil
from pathlib import Path

from cluster import cache
from cluster.apt import Apt, do
from cluster.layout import ClusterError, Layout, Options

RELEASES = {"24.11": "trixie"}
"""Debian's release that has it."""
PACKAGES = ("slurm-client", "slurm-wlm-basic-plugins", "slurm-wlm-mysql-plugin", "slurmctld", "slurmd", "slurmdbd")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PLUGINS = f"{LIBRARIES}/slurm-wlm"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
PARTS = ("bin", "sbin")
FORMAT = 1
"""Counts up when the same packages are to be laid out in another way."""


def root(options: Options) -> Path | None:
    """The folder below which it lies, fetched if this machine has not done so before; None for the machine's own Slurm.
    Raises ClusterError."""
    release = RELEASES.get(options.slurm)
    if release is None:
        return None
    recipe = [FORMAT, options.slurm, PACKAGES]
    return cache.kept("slurm", recipe, lambda folder, place_of: _fetch(folder, place_of, options.slurm, release))


def place(layout: Layout, options: Options) -> None:
    """Put its programs before the machine's own on the user's PATH. Raises ClusterError."""
    found = root(options)
    if found is None:
        return
    layout.programs.mkdir(mode=0o755, exist_ok=True)
    for program in _programs(found):
        # Debian's daemons are alternatives of one another: slurmctld-wlm
        (layout.programs / program.name.removesuffix("-wlm")).symlink_to(program)


def _programs(folder: Path) -> list[Path]:
    return [each for part in PARTS for each in sorted((folder / "usr" / part).iterdir())]


def _fetch(folder: Path, place_of: cache.Place, wanted: str, release: str) -> str:
    """Lay it out in the folder, to be used from its later place. Returns the version."""
    print(f"fetching Slurm {wanted} from Debian's {release} ...", flush=True)
    apt = Apt(folder / "apt", release)
    archives = {archive.name.partition("_")[0]: archive for archive in apt.download_all(*PACKAGES)}
    version = do("dpkg-deb", "-f", str(archives["slurmctld"]), "Version").strip()
    for name in sorted(each for each in archives if each.startswith("lib")):
        do("dpkg", "-x", str(archives[name]), str(folder))
    for part in PARTS:  # of what libraries bring along, no program is wanted
        shutil.rmtree(folder / "usr" / part, ignore_errors=True)
    for name in PACKAGES:
        do("dpkg", "-x", str(archives[name]), str(folder))
    do("rm", "-r", str(apt.folder))
    if not version.startswith(f"{wanted}."):
        raise ClusterError(f"Debian's {release} has Slurm {version or 'no more'}, not {wanted}.")
    where = place_of(version)
    for program in _programs(folder):
        _point([program], f"$ORIGIN/../../{PLUGINS}:$ORIGIN/../../{LIBRARIES}")
        do("patchelf", "--set-interpreter", str(where / LOADER), str(program))
    # a plugin that looks where its package would have put it finds the other version's library there
    _point(sorted((folder / PLUGINS).glob("*.so")), "$ORIGIN:$ORIGIN/..")
    # not by its name: the loader lies where the folder is now, not where the program looks for it
    shown = do(str(folder / LOADER), str(folder / "usr" / "sbin" / "slurmctld-wlm"), "-V")
    if f"slurm-wlm {wanted}" not in shown:
        raise ClusterError(f"Slurm of Debian's {release} does not start here: {shown.strip()}")
    return version


def _point(files: list[Path], where: str) -> None:
    do("patchelf", "--force-rpath", "--set-rpath", where, *map(str, files))
