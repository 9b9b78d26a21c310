"""Programs that install, and what of their arguments is not an exact version (R26). One function per program, one table."""

from collections.abc import Mapping
from typing import Final

from launcher.image.installers import languages, python, system
from launcher.image.installers.loose import Rule

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("pip", "pip2", "pip3"), python.pip),
    "uv": python.uv,
    "uvx": python.uvx,
    "pipx": python.pipx,
    **dict.fromkeys(("conda", "mamba", "micromamba"), system.conda),
    **dict.fromkeys(("apt", "apt-get", "aptitude"), system.apt),
    "apk": system.apk,
    "pacman": system.pacman,
    **dict.fromkeys(("dnf", "dnf5", "yum", "microdnf", "zypper"), system.rpm),
    **dict.fromkeys(("npm", "yarn", "pnpm"), languages.npm),
    "npx": languages.npx,
    "go": languages.go,
    "cargo": languages.cargo,
    "gem": languages.gem,
    **dict.fromkeys(
        ("poetry", "pdm", "pipenv", "hatch", "rye", "pixi", "easy_install", "brew", "spack"), python.foreign
    ),
}
"""By the name of the program."""
