"""A cluster's profile, slurm/sites/NAME.yaml, found by its name, and what it means for a launch."""

import os
from pathlib import Path
from typing import Final

from launcher import walltime
from launcher.config import hints
from launcher.config.read import SUFFIXES, read
from launcher.engines import BuildOptions, NodeOptions, Registry, Workshop
from launcher.errors import ExitCode, Problem, fail
from launcher.profile import Profile

VARIABLE: Final = "SAMEBITS_SITE"
"""Environment variable with the site's name, for those who always use the same."""
DEFAULT: Final = "default"
FOLDER: Final = Path("slurm", "sites")


class Site(Profile):
    """A profile and its name, which is its file's."""

    name: str
    """The file's name without its suffix."""
    file: Path | None
    """None: there is no file, every key has its default."""

    @property
    def _registry(self) -> Registry | None:
        return Registry(self.registry.address, self.registry.insecure) if self.registry else None

    def workshop(self) -> Workshop:
        """How images are made here."""
        build = self.build
        options = BuildOptions(
            ca_bundle=str(build.ca_bundle) if build.ca_bundle else None,
            index_url=build.index_url,
            extra_index_urls=tuple(build.extra_index_urls),
            find_links=tuple(build.find_links),
            proxies={str(kind): url for kind, url in build.proxies.items()},
            network=build.network,
        )
        return Workshop(self.store, self._registry, options)

    def node(self) -> NodeOptions:
        """How images are run here."""
        return NodeOptions(self.store, self._registry, self.node_cache, self.docker.gpus, self.docker.gpu_device)

    def refusals(self, partition: str, gpus: int, minutes: int) -> list[Problem]:
        """Why a run of that size and time limit cannot go to that partition, as far as the profile says; empty if it can."""
        found = []
        if minutes * 60 <= self.signal_seconds:
            what = f"The time limit of {minutes} min leaves nothing before the signal, {self.signal_seconds} s ahead of it."
            found.append(Problem(what, f"site {self.name}", "Ask for more time, or lower the site's signal_seconds."))
        if self.partitions is None:
            return found
        where = str(_short(self.file)) if self.file else f"site {self.name}"
        offer = self.partitions.get(partition)
        if offer is None:
            near = hints.close(partition, list(self.partitions))
            known = f"There: {', '.join(self.partitions)}."
            hint = f"Did you mean {near}? {known}" if near else known
            return [*found, Problem(f"The site has no partition `{partition}`.", where, hint)]
        if offer.gpus_per_node is not None and gpus > offer.gpus_per_node:
            what = f"Partition {partition} has {offer.gpus_per_node} GPUs per node; the config asks for {gpus}."
            found.append(Problem(what, where, "Another partition, or cluster.gpus in the config."))
        return found

    def longest(self, partition: str) -> int | None:
        """How many minutes an attempt can have there, as far as the profile says; None: it does not."""
        offer = (self.partitions or {}).get(partition)
        return walltime.minutes(offer.max_time) if offer and offer.max_time else None


def load_site(name: str | None, repository: Path) -> Site:
    """The site of that name, or of $SAMEBITS_SITE, or `default`, which needs no file. A path of a YAML file is taken as it is: a
    cluster's engineers can keep one for all repositories.

    Raises LaunchError: CLUSTER for one that is not there, CONFIG for mistakes in it, FILES when it may not be read."""
    wanted = name or os.environ.get(VARIABLE) or DEFAULT
    if "/" in wanted and wanted.endswith(SUFFIXES):
        file = Path(wanted).expanduser()
        profile, _ = read(_short(file), Profile, "site profile")
        return _named(profile, file.stem, file)
    folder = repository / FOLDER
    there = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES}
    if wanted in there:
        profile, _ = read(_short(there[wanted]), Profile, "site profile")
        return _named(profile, wanted, there[wanted])
    if wanted == DEFAULT:
        return _named(Profile(), wanted, None)
    near = hints.close(wanted, list(there))
    known = f"There: {', '.join(there)}." if there else f"There is none in {folder}."
    hint = f"Did you mean {near}? {known}" if near else known
    source = "" if name else f" (from ${VARIABLE})"
    raise fail(ExitCode.CLUSTER, f"No site `{wanted}`{source}.", hint=hint)


def _named(profile: Profile, name: str, file: Path | None) -> Site:
    values = {key: getattr(profile, key) for key in Profile.model_fields}
    return Site.model_construct(**values, name=name, file=file)


def _short(path: Path) -> Path:
    """Relative to the working directory where that is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
