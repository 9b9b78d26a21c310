"""The program `apptainer` on this machine: whether it can be used, and what it is called with. Standard library only."""

import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from launcher.errors import ExitCode, Problem
from launcher.process import ProgramMissingError, run

ELSEWHERE: Final = (
    "Build on another machine: launch image export CONFIG FILE there, then here: launch image import FILE\n"
    "Or take another engine: image: {engine: host}"
)
SQUASHFUSE: Final = ("squashfuse_ll", "squashfuse")
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""ldconfig, by which --nv finds the driver, is not on every user's PATH."""


def health() -> list[Problem]:
    """Why no image can be run here. What building needs besides is said by `can_build`."""
    program = shutil.which("apptainer")
    if program is None:
        hint = f"Install it, or load the site's module for it: module load apptainer\n{ELSEWHERE}"
        return [Problem("`apptainer` is not on PATH.", hint=hint)]
    if shutil.which("mksquashfs", path=_path()) is None:
        hint = "Install squashfs-tools 4.4 or newer: apt-get install squashfs-tools"
        return [Problem("`mksquashfs` is not on PATH: it makes the layer of the code.", hint=hint)]
    if os.getuid() == 0 or settings().get("APPTAINER_SUID_INSTALL") == "1":
        return []
    return [*_namespaces(), *_fuse()]


def _namespaces() -> list[Problem]:
    for file in (Path("/proc/sys/user/max_user_namespaces"), Path("/proc/sys/kernel/unprivileged_userns_clone")):
        try:
            off = int(file.read_text(encoding="ascii")) == 0
        except (OSError, ValueError):
            continue
        if off:
            what = "Users may not make user namespaces here, and this Apptainer has no setuid part: it cannot start images."
            name = ".".join(file.parts[3:])
            hint = f"Ask the administrator: sysctl {name}=..., or the package apptainer-suid.\n{ELSEWHERE}"
            return [Problem(what, str(file), hint)]
    return []


def _fuse() -> list[Problem]:
    if server() is None:
        hint = "Ask the administrator to install it: apt-get install squashfuse fuse3"
        return [
            Problem("Apptainer finds no squashfuse: without it an image is unpacked anew at each start.", hint=hint)
        ]
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        hint = f"Ask the administrator: modprobe fuse, and mode 666 for that device.\n{ELSEWHERE}"
        return [Problem(f"Images cannot be mounted: {error.strerror}.", "/dev/fuse", hint)]
    return []


def server() -> Path | None:
    """The program that mounts images for a user: Apptainer's own comes first, as Apptainer searches."""
    found = (shutil.which(name, path=f"{bundled()}:{_path()}") for name in SQUASHFUSE)
    return next((Path(path) for path in found if path), None)


def bundled() -> Path:
    """The folder of helpers that this Apptainer prefers to those on PATH."""
    return Path(settings().get("LIBEXECDIR", "/usr/libexec")) / "apptainer" / "bin"


def program() -> str:
    """Path of `apptainer`. Raises ProgramMissingError (IMAGE)."""
    found = shutil.which("apptainer")
    if found is None:
        raise ProgramMissingError(ExitCode.IMAGE, health())
    return found


@cache
def settings() -> Mapping[str, str]:
    """What `apptainer buildcfg` says of the installation."""
    said = run([program(), "buildcfg"], env=environment(), exactly=True, kind=ExitCode.IMAGE).stdout
    return dict(re.findall(r"^(\w+)=(.*)$", said, re.MULTILINE))


def environment(**more: str) -> dict[str, str]:
    """All that Apptainer gets: neither its own settings by variables (APPTAINER_BIND and a hundred others), nor anything that a
    container could inherit."""
    return {"PATH": _path(), "LANG": "C.UTF-8", **more}


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".lstrip(":")


def mount(source: Path, target: Path, *options: str) -> list[str]:
    """`--mount` of Apptainer. Its fields are CSV, so that a path may hold a comma or a colon."""
    fields = ["type=bind", f"source={source}", f"destination={target}", *(each for each in options if each != "rw")]
    quoted = (f'"{text.replace(chr(34), chr(34) * 2)}"' if re.search(r'[,"\s]', text) else text for text in fields)
    return ["--mount", ",".join(quoted)]
