"""Where each attempt of a run comes from (R11, R13, R21): commit, digests, packages, versions, machine, job. One file per seed.

Named facts only: the environment is never dumped, since it holds keys."""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs import conda, machine
from jobs.contract import ImagePin
from jobs.facts import PINS
from jobs.files import now, publish, publish_json

if TYPE_CHECKING:
    from jobs.recipe import Specification
    from jobs.rundir import RunDir

FORMAT: Final = 1
DIGESTS: Final = {
    "host": {"environment": "lock_sha256", "code": "code_tree"},
    "docker": {
        "base": "base_digest",
        "environment": "environment_image_id",
        "layer": "image_id",
        "manifest": "manifest_digest",
        "code": "code_tree",
        "key": "environment_key",
    },
    "apptainer": {
        "base": "base_digest",
        "environment": "environment_sif_sha256",
        "layer": "code_squashfs_sha256",
        "manifest": "manifest_digest",
        "code": "code_tree",
        "key": "environment_key",
    },
}
"""By engine: what each digest of the pin is of. An image id, the digest of a manifest and that of a base are three things."""


def record(
    specification: "Specification", rundir: "RunDir", attempt: int, ranks: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write provenance.json and pip-freeze.txt, and say the versions of R11 in the log. An attempt adds itself to those before;
    `ranks`: where each is, when there are several (`jobs.machine.of_rank`).

    Raises OSError."""
    import torch

    versions = machine.gpu_versions()
    said = ", ".join(f"{name} {fact['version'] or '(' + str(fact['reason']) + ')'}" for name, fact in versions.items())
    print(f"torch {torch.__version__}, {said}", flush=True)
    history, no_history = conda.export_history()
    rundir.artifacts.mkdir(parents=True, exist_ok=True)
    freeze = "".join(f"{package}\n" for package in packages())
    publish(rundir.artifacts / "pip-freeze.txt", freeze.encode())
    if history is not None:
        publish(rundir.artifacts / "conda-history.yml", history.encode())
    kept = {
        "format": FORMAT,
        "experiment": specification.experiment,
        "seed": specification.seed,
        "commit": specification.commit,
        "dirty": specification.dirty,
        "patch": _patch(rundir) if specification.dirty else None,
        "config_sha256": specification.config_sha256,
        "image": digests(specification.image),
        "launched": specification.launched,
        "attempts": [*_former_attempts(rundir.provenance, attempt), _attempt(attempt, versions, ranks)],
        "packages": freeze.splitlines(),
        "conda": {"file": None if history is None else "conda-history.yml", "reason": no_history},
    }
    publish_json(rundir.provenance, kept)


def digests(pin: ImagePin) -> dict[str, str | None]:
    """Engine and Python of a pin, and each digest under the name of what it is of."""
    names = DIGESTS.get(pin.engine, {})
    found = {names[field]: getattr(pin, field) for field in names}
    return {"engine": pin.engine, "python": pin.python, **found}


def _patch(rundir: "RunDir") -> dict[str, str | None]:
    """What was added to the commit, with --allow-dirty."""
    path = rundir.root / "artifacts" / "source.patch"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return {"file": path.name, "sha256": None, "reason": str(error.strerror)}
    return {"file": path.name, "sha256": digest, "reason": None}


def packages() -> list[str]:
    """Every installed distribution as `name==version`, sorted, each once."""
    found = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in metadata.distributions() if d.name}
    return sorted(f"{name}=={version}" for name, version in found.items())


def _attempt(
    number: int, versions: dict[str, dict[str, str | None]], ranks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What may be another in each attempt: the machine, the job, the command."""
    import torch

    return {
        "attempt": number,
        "time": now(),
        "command": sys.orig_argv,
        "python": platform.python_version(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "torch": torch.__version__,
        **versions,
        "gpus": machine.gpus(),
        "cpu": machine.processor(),
        "pins": {name: os.environ.get(name) for name in PINS},
        **machine.host(),
        "slurm": machine.slurm(),
        "ranks": [dict(each) for each in ranks] or None,
    }


def _former_attempts(path: Path, attempt: int) -> list[dict[str, Any]]:
    """Those of a record that is there already. One that cannot be read is set aside, not overwritten."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["attempts"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        path.replace(path.with_name(f"{path.stem}-before-attempt-{attempt}{path.suffix}"))
        return []
    return [one for one in found if one["attempt"] != attempt]
