"""Where this machine gets its Debian packages from: its own mirror is asked for what is fetched besides."""

import subprocess

from cluster.layout import ClusterError

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def sources() -> list[str]:
    """Lines of sources.list for Debian 12, its updates among them. Raises ClusterError."""
    mirror()
    return [f"deb {uri} {release} main" for release, uri in _targets() if release.partition("-")[0] == SUITE]


def mirror() -> str:
    """The URL below which all of Debian's releases lie. Raises ClusterError."""
    found = [uri for release, uri in _targets() if release == SUITE]
    if not found:
        raise ClusterError(f"apt of this machine has no source of Debian's {SUITE}. See: apt-get indextargets")
    return found[0]


def _targets() -> list[tuple[str, str]]:
    """Release and URL of each source, in the order of apt's configuration."""
    argv = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages", "Component: main"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    rows = [line.split() for line in done.stdout.splitlines()]
    return list(dict.fromkeys((row[0], row[1]) for row in rows if len(row) == 2))  # noqa: PLR2004 - a pair
