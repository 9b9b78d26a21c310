"""The base image of tests and demonstrations: a minimal Debian with Python, in the cluster's registry, named by its digest."""

import subprocess
from pathlib import Path

from cluster import cache, debian, docker, registry
from cluster.debian import SUITE
from cluster.layout import ClusterError, Layout, Options
from cluster.packages import program

NAME = "base"
INCLUDE = ("ca-certificates", "python3", "python3-venv")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")


def prepare(layout: Layout, options: Options) -> str:
    """Its reference, `127.0.0.1:PORT/base@sha256:...`. It is made once on a machine, so the digest stays. The registry must run;
    the first time the engine, too. Raises ClusterError."""
    made = cache.kept(NAME, [debian.sources(), INCLUDE, LEFT_OUT], lambda folder, _: _make(layout, options, folder))
    digest = registry.digest(options, NAME, SUITE)
    if digest is None:
        registry.copy(made, layout.registry, NAME)
        digest = registry.digest(options, NAME, SUITE)
    if digest is None:
        raise ClusterError(f"the registry does not have the image that was put into {layout.registry} from {made}.")
    return f"{registry.address(options)}/{NAME}@{digest}"


def _make(layout: Layout, options: Options, folder: Path) -> str:
    """Fill a folder as a registry has it. Returns the digest."""
    print(f"making a base image of Debian {SUITE} with Python ...", flush=True)
    archive, tag = folder / "base.tar", f"{registry.address(options)}/{NAME}:{SUITE}"
    argv = [program("mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(INCLUDE)}"]
    argv += [*(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT), SUITE, str(archive), *debian.sources()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(argv)}` failed with {done.returncode}:\n{tail}")
    docker.client(layout, "import", str(archive), tag)
    archive.unlink()
    docker.client(layout, "push", "--quiet", tag)
    registry.copy(layout.registry, folder, NAME)
    digest = registry.digest(options, NAME, SUITE)
    if digest is None:
        raise ClusterError(f"the registry does not have {tag}, which was pushed there.")
    return digest.replace("sha256:", "")[:16]
