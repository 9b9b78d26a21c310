"""What `start --containers` adds to a cluster: a Docker engine, a registry with a base image, Apptainer, and a site's profile."""

import pwd

from cluster import apptainer, base, docker, pip, registry, site, wheels
from cluster.layout import Layout, Options


def names(layout: Layout) -> list[str]:
    """Its daemons, in the order of their start."""
    return [*docker.NAMES, registry.NAME, *([wheels.NAME] if wheels.served(layout) else [])]


def start(layout: Layout, options: Options, account: pwd.struct_passwd) -> None:
    """Start what does not run, and write what the user's programs need to know. Raises ClusterError."""
    layout.images.mkdir(mode=0o755, exist_ok=True)
    told = pip.settings()
    wheels.place(layout, told.folders)
    urls = wheels.start(layout, options)
    registry.start(layout, options)
    docker.start(layout, account)
    apptainer.open_fuse()
    layout.programs.mkdir(mode=0o755, exist_ok=True)
    for name, target in (("docker", docker.CLIENT), ("apptainer", str(apptainer.program()))):
        link = layout.programs / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    layout.base.write_text(base.prepare(layout, options) + "\n", encoding="utf-8")
    site.write(layout, options, told, urls)


def variables(layout: Layout) -> dict[str, str]:
    """What the user's environment gets; nothing where the cluster has no containers."""
    if not layout.site.is_file():
        return {}
    return {
        "DOCKER_HOST": docker.host(layout),
        "SAMEBITS_SITE": str(layout.site),
        "SAMEBITS_TEST_BASE": layout.base.read_text(encoding="utf-8").strip(),
    }
