"""Secrets as users have them, planted; and where any of them is found again."""

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster_ground import SUDO

PLANTED = {
    name: f"planted-{name.lower().replace('_', '-')}-0123456789abcdef0123456789abcdef"
    for name in (
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GITHUB_TOKEN",
        "APPTAINER_DOCKER_PASSWORD",
        "MY_INDEX_PASSWORD",
        "REGISTRY_PASSWORD",
        "LITERAL_PASSWORD",
    )
}
"""Variables of the shell, all but the last two: a password in ~/.docker/config.json, and one that stands in the site's profile."""
IN_FILES = ("REGISTRY_PASSWORD", "LITERAL_PASSWORD")
PASSED_ON = ("WANDB_API_KEY", "HF_TOKEN")
"""Those that a run gets, by the site's allow-list."""
CA = f"/planted/{'-'.join(PASSED_ON).lower()}.pem"
"""Not in one piece: this file is itself in the repositories that are searched."""


def shell() -> dict[str, str]:
    """What an environment holds."""
    return {name: value for name, value in PLANTED.items() if name not in IN_FILES}


def docker_config() -> str:
    """~/.docker/config.json of somebody who is logged in to a registry."""
    auth = base64.b64encode(f"me:{PLANTED['REGISTRY_PASSWORD']}".encode()).decode()
    return json.dumps({"auths": {"registry.example.org": {"auth": auth}}})


def needles() -> dict[str, str]:
    """What is searched for: each secret as it is, and as it is encoded in files and URLs."""
    auth = json.loads(docker_config())["auths"]["registry.example.org"]["auth"]
    return {**PLANTED, "REGISTRY_PASSWORD, encoded": auth, "the way to the CA": CA}


def found(
    folder: Path, *, but: tuple[Path, ...] = (), names: Mapping[str, str] | None = None
) -> list[tuple[str, Path]]:
    """Which secret stands in which file below a folder, binary ones and other users' as well. `but`: where they were planted."""
    result = []
    for name, text in (needles() if names is None else names).items():
        argv = [*SUDO, "grep", "--recursive", "--devices=skip", "--binary-files=text", "-lF", "-e", text, str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        result += [(name, Path(line)) for line in done.stdout.splitlines()]
    return [(name, path) for name, path in result if not any(path.is_relative_to(one) for one in but)]


def named(text: str) -> list[str]:
    """Which secrets a text holds."""
    return [name for name, needle in needles().items() if needle in text]
