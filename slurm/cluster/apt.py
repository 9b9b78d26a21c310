"""apt-get on another release of Debian than this machine's, with lists and downloads in a folder of its own. Installs nothing."""

import subprocess
from pathlib import Path

from cluster import debian
from cluster.layout import ClusterError


class Apt:
    """One release as its only source; signatures are checked as always."""

    def __init__(self, folder: Path, release: str) -> None:
        self.folder, self.release = folder, release
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        source = f"deb [signed-by={debian.KEYRING}] {debian.mirror()} {release} main\n"
        (folder / "sources.list").write_text(source, encoding="utf-8")
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "root",  # the folder is not open to apt's own user
        }
        self.options = [f"-o{name}={value}" for name, value in settings.items()]
        do("apt-get", *self.options, "-q", "update", "--error-on=any")

    def libraries(self, package: str) -> list[str]:
        """The libraries that it needs directly; those below them are the same as this system's, or part of libc6."""
        shown = do("apt-cache", *self.options, "depends", "--important", package)
        words = [line.split() for line in shown.splitlines()]
        found = sorted({line[1] for line in words if line[0] == "Depends:" and line[1].startswith("lib")})
        if "libc6" not in found:
            raise ClusterError(f"{package} of Debian's {self.release} needs other libraries than expected:\n{shown}")
        return found

    def download(self, *packages: str) -> None:
        """These packages alone, into the folder."""
        do("apt-get", *self.options, "-q", "download", *packages, cwd=self.folder)

    def download_all(self, *packages: str) -> list[Path]:
        """These packages and all that they need, as on a machine that has nothing yet."""
        nothing = self.folder / "status"
        nothing.touch()
        options = [*self.options, f"-oDir::State::status={nothing}", "--no-install-recommends", "--download-only"]
        do("apt-get", *options, "-q", "-y", "install", *packages)
        return sorted((self.folder / "cache" / "archives").glob("*.deb"))


def do(*argv: str, cwd: Path | None = None) -> str:
    """What a program printed. Raises ClusterError with its last lines."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=cwd)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(argv)}` failed with {done.returncode}:\n{tail}")
    return done.stdout
