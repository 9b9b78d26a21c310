"""The schema against what is written about it: examples, hints, JSON Schema, documentation, the shipped configs."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from config_samples import VALID, changed, written

from launcher.config import hints, words
from launcher.config.freeze import frozen_text
from launcher.config.jsonschema import schema, schema_text
from launcher.config.load import load
from launcher.config.mistake import dotted
from launcher.config.schema import Experiment
from launcher.errors import LaunchError
from launcher.profile import Profile

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))
KEYS = {dotted(path): info for path, info in hints.fields(Experiment)}

spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def validator():
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("page", ["schema.json", "config.md", "sites.md"])
def test_documentation_is_what_the_code_says(page):
    """Mended by `python docs/reference.py`."""
    path = ROOT / "docs" / page
    assert path.read_text(encoding="utf-8") == reference.pages()[path]


def test_every_key_has_a_description_and_stands_in_the_documentation():
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for key, info in KEYS.items():
        assert info.description, key
        assert f"| `{key.rsplit('.', 1)[-1]}` |" in text
    sites = (ROOT / "docs" / "sites.md").read_text(encoding="utf-8")
    for path, info in hints.fields(Profile):
        assert info.description, path
        assert f"| `{path[-1]}` |" in sites


def test_every_key_that_must_be_given_has_an_example_and_no_other():
    required = {key for key, info in KEYS.items() if info.is_required()}
    assert set(hints.EXAMPLES) >= required
    assert set(hints.EXAMPLES) <= set(KEYS)
    assert set(hints.REASONS) <= required


@pytest.mark.parametrize("key", ["name", "seeds", "lora", "training", "training.optimizer", "training.optimizer.lr"])
def test_examples_are_right(key, tmp_path):
    """The example in place of what the valid config holds."""
    data = yaml.safe_load(VALID.replace("1e-", "1.0e-"))
    *above, last = key.split(".")
    section = data
    for part in above:
        section = section[part]
    section[last] = load_example(hints.EXAMPLES[key])[last]
    load(written(tmp_path, json.dumps(data)))


def load_example(line):
    return yaml.safe_load(line.replace("3e-4", "3.0e-4"))


def test_synonyms_lead_to_keys_and_hide_none():
    assert set(hints.SYNONYMS.values()) <= set(KEYS)
    names = {key.rsplit(".", 1)[-1] for key in KEYS}
    assert not names & set(hints.SYNONYMS)
    assert not names & set(hints.ELSEWHERE)


def test_every_pattern_of_the_schema_has_words():
    own = {"name", "memory", "time"}
    patterns = {
        info.pattern for _, field in hints.fields(Experiment) for info in field.metadata if hasattr(info, "pattern")
    }
    found = set(patterns_in(Experiment.model_json_schema()))
    assert patterns - {None} <= set(words.PATTERNS)
    assert len(found - set(words.PATTERNS)) == len(own)


def patterns_in(value):
    if isinstance(value, list):
        for item in value:
            yield from patterns_in(item)
    if isinstance(value, dict):
        if isinstance(value.get("pattern"), str):
            yield value["pattern"]
        for item in value.values():
            yield from patterns_in(item)


def test_json_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(schema_text()) == schema()
    schema_text().encode("ascii")


def test_json_schema_accepts_what_the_loader_accepts(tmp_path):
    loaded = load(written(tmp_path, VALID))
    validator().validate(yaml.safe_load(frozen_text(loaded.experiment)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: quick", "name: a b"),
        ("seeds: [0, 1, 2]", "seeds: []"),
        ("seeds: [0, 1, 2]", "seeds: [1, 1]"),
        ("seeds: [0, 1, 2]", "seed: 1"),
        ("  epochs: 3", '  epochs: "3"'),
        ("  epochs: 3", "  epochs: 0"),
        ("cpus: 2", "cpu: 2"),
        ("cpus: 2", "memory: 2 GB"),
        ("time: 01:30:00", "time: soon"),
    ],
)
def test_json_schema_refuses_what_the_loader_refuses(old, new, tmp_path):
    text = changed(old, new)
    with pytest.raises(LaunchError):
        load(written(tmp_path, text))
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(yaml.safe_load(text.replace("1e-", "1.0e-")))


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config(path):
    loaded = load(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.split("$schema=")[1]).resolve() == ROOT / "docs" / "schema.json"
    validator().validate(yaml.safe_load(loaded.resolved))
