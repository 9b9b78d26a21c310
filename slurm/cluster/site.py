"""The profile of a cluster with containers: slurm/sites/testcluster.yaml, and where this one has its registry and wheels."""

import json
from typing import Any

from cluster import registry
from cluster.layout import REPOSITORY, Layout, Options
from cluster.pip import Settings

BASIS = REPOSITORY / "slurm" / "sites" / "testcluster.yaml"


def write(layout: Layout, options: Options, pip: Settings, wheels: list[str]) -> None:
    """`wheels`: URLs at which a build finds folders of wheels of this machine."""
    build: dict[str, Any] = {
        "ca_bundle": str(pip.ca_bundle) if pip.ca_bundle else None,
        "index_url": pip.index_url,
        "extra_index_urls": list(pip.extra_index_urls),
        "find_links": [*wheels, *pip.links],
        "proxies": pip.proxies,
        "network": "host",
    }
    sections = {
        "registry": {"address": f"{registry.address(options)}/samebits", "insecure": True},
        "build": {key: value for key, value in build.items() if value},
        "docker": {"gpus": "devices", "gpu_device": f"{layout.devices}/nvidia{{}}"},
    }
    # JSON is YAML, too; there is no YAML in the standard library
    lines = [f"{name}: {json.dumps(section)}" for name, section in sections.items()]
    head = "# Written by slurm/testcluster start --containers; gone with `stop`.\n"
    text = f"{head}{BASIS.read_text(encoding='utf-8')}\n" + "\n".join(lines) + "\n"
    layout.site.write_text(text, encoding="utf-8")
