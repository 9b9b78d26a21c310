"""The door of this package: a config file into an experiment."""

from dataclasses import dataclass
from pathlib import Path

from launcher.config.freeze import frozen_text
from launcher.config.read import read
from launcher.config.schema import Experiment


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that is right."""

    experiment: Experiment
    file: Path
    """As it was given."""
    text: str
    """As it stands in the file, without a byte order mark."""
    resolved: str
    """Every default written out: the text of the tree's config.yaml. Loads back to an equal experiment."""


def load(path: Path) -> Loaded:
    """Read a config. Raises LaunchError with every mistake at once (CONFIG), or FILES when it may not be read."""
    experiment, text = read(path, Experiment, "config")
    return Loaded(experiment, path, text, frozen_text(experiment))
