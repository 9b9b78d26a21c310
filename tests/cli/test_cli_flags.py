"""Every verb and every flag, listed: a new knob must break a test, stand in docs/cli.md, and not be one of the recipe's."""

import re
from pathlib import Path

import click
import pytest

from launcher.cli import VERBS, group
from launcher.config import hints
from launcher.config.schema import Experiment

DOCS = Path(__file__).parents[2] / "docs"

FLAGS = {
    "run": {
        "--partition",
        "--site",
        "--account",
        "--qos",
        "--time",
        "--nodes",
        "--ranks",
        "--local",
        "--dry-run",
        "--json",
        "--wait",
        "--allow-dirty",
        "--experiments",
    },
    "status": {"--json", "--experiments"},
    "logs": {"--seed", "-f", "--follow", "--attempt", "--experiments"},
    "cancel": {"--seed", "--experiments"},
    "image": set(),
    "image build": {"--engine", "--site", "--experiments"},
    "image push": {"--engine", "--site", "--experiments"},
    "image pull": {"--engine", "--site", "--experiments"},
    "image ls": {"--json", "--site", "--experiments"},
    "image prune": {"--older", "--dry-run", "--json", "--site", "--experiments"},
    "image export": {"--engine", "--site", "--experiments"},
    "image import": {"--site"},
    "chaos": {
        "--seed",
        "--blows",
        "--only",
        "--local",
        "--partition",
        "--site",
        "--account",
        "--qos",
        "--preemptor",
        "--as-admin",
        "--stop-node",
        "--start-node",
        "--experiments",
    },
    "schema": set(),
}
ARGUMENTS = {
    "run": ["config"],
    "status": ["name"],
    "logs": ["name"],
    "cancel": ["name"],
    "image": [],
    "image build": ["config"],
    "image push": ["config"],
    "image pull": ["config"],
    "image ls": [],
    "image prune": [],
    "image export": ["config", "file"],
    "image import": ["file"],
    "chaos": ["config"],
    "schema": [],
}

WHICH_RUN = {"--seed"}
"""Chooses among runs that exist already; it starts none."""
WHEN_NOT_WHAT = {"--time", "--nodes", "--ranks"}
"""Keys of `cluster`, which changes no result; and ranks where the config says that they change none."""
FOR_ANOTHER_MACHINE = {"--engine"}
"""Which image is made, for a machine that has another engine. It starts no run."""


def command(verb):
    found = group
    for word in verb.split():
        found = found.get_command(click.Context(found), word)
        assert found is not None
    return found


def options(verb):
    return {name for p in command(verb).params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}


def test_verbs():
    assert list(VERBS) == [verb for verb in FLAGS if " " not in verb]
    assert group.list_commands(click.Context(group)) == list(VERBS)
    assert {f"image {name}" for name in command("image").commands} == {verb for verb in FLAGS if " " in verb}
    assert {name for p in group.params for name in p.opts} == {"--version"}


@pytest.mark.parametrize("verb", FLAGS)
def test_flags(verb):
    assert options(verb) == FLAGS[verb]
    assert [p.name for p in command(verb).params if isinstance(p, click.Argument)] == ARGUMENTS[verb]


@pytest.mark.parametrize("verb", FLAGS)
def test_each_is_explained(verb):
    if verb in VERBS:
        assert command(verb).help.splitlines()[0] == VERBS[verb]
    assert command(verb).help
    assert all(p.help for p in command(verb).params if isinstance(p, click.Option))
    assert "launch" in command(verb).epilog


@pytest.mark.parametrize("verb", FLAGS)
def test_each_is_documented_and_nothing_else(verb):
    section = re.split(r"^## ", (DOCS / "cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    mine = next(part for part in section if re.match(rf"launch {verb}( [A-Z\[]|$)", part, re.MULTILINE))
    rows = [line.split("|")[1] for line in mine.splitlines() if line.startswith("| `-")]
    assert {flag for row in rows for flag in re.findall(r"`(--?[a-z-]+)", row)} == FLAGS[verb]


def test_no_flag_is_a_key_of_the_recipe():
    """R5 and R14: what a run computes stands in YAML, in git."""
    keys = {str(path[-1]) for path, _ in hints.fields(Experiment)}
    for verb in FLAGS:
        allowed = WHEN_NOT_WHAT if verb == "run" else FOR_ANOTHER_MACHINE if "image" in verb else WHICH_RUN
        clash = {
            flag for flag in options(verb) if flag.lstrip("-").replace("-", "_") in keys | {"seed", "set", "resume"}
        }
        assert clash <= allowed


def test_time_belongs_to_what_changes_no_result():
    homes = {path for path, _ in hints.fields(Experiment) if path[-1] == "time"}
    assert homes == {("cluster", "time")}
