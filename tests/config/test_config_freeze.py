"""The frozen text: equal again to the last bit, and the same for every reader of YAML."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from config_samples import VALID, changed, written
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.recipe import Recipe
from launcher.config.freeze import frozen_text
from launcher.config.load import load
from launcher.config.schema import ORDER, Experiment

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.from_regex(r"[-+~.0-9eExobn:_#!&*'\" ]{0,8}", fullmatch=True),
    st.sampled_from(
        [
            "no",
            "Yes",
            "1e-5",
            "010",
            "0o7",
            "1_0",
            "08",
            "null",
            "~",
            "=",
            "<<",
            "2026-01-01",
            "1:30:00",
            ".inf",
            "a\n",
            "\x85",
        ]
    ),
)
NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**40), 10**40))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
RATES = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def experiments(draw):
    threads = draw(st.integers(1, 8))
    return Experiment.model_validate(
        {
            "name": draw(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)),
            "seeds": draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5, unique=True)),
            "model": {
                "architecture": {"type": draw(TEXTS), "settings": draw(st.dictionaries(TEXTS, VALUES, max_size=4))}
            },
            "lora": draw(st.none() | st.builds(lambda a: {"r": 8, "alpha": a, "target_modules": ["c_attn"]}, RATES)),
            "data": {
                "files": {part: {"path": draw(TEXTS), "sha256": "0" * 63 + "e"} for part in ("train", "validation")},
                "max_length": draw(st.integers(1, 10**6)),
            },
            "training": {
                "epochs": draw(st.integers(1, 1000)),
                "batch_size": 4,
                "optimizer": {"lr": draw(RATES), "weight_decay": draw(st.floats(0, 1))},
                "clip_norm": draw(st.none() | RATES),
            },
            "numerics": {"threads": threads},
            "cluster": {"cpus": threads, "time": draw(st.sampled_from([None, "01:30:00", "12:30:00", "2-00:00:00"]))},
        }
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(experiments())
def test_frozen_text_loads_back_equal_and_freezes_to_itself(experiment):
    text = frozen_text(experiment)
    with TemporaryDirectory() as folder:
        again = load(written(Path(folder), text))
    assert again.experiment == experiment
    assert again.resolved == text
    assert repr(again.experiment.model_dump()) == repr(
        experiment.model_dump()
    )  # also tells 0.0 from -0.0, and 1 from 1.0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(experiments())
def test_frozen_text_is_the_same_for_a_reader_of_old_yaml(experiment):
    assert repr(yaml.safe_load(frozen_text(experiment))) == repr({key: experiment.model_dump()[key] for key in ORDER})


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e-05)
@example(5e-324)
@example(-0.0)
def test_floats_keep_their_bits(number):
    data = Experiment.model_validate(yaml.safe_load(VALID.replace("1e-", "1.0e-")))
    settings_ = data.model.architecture.settings | {"eps": number}
    architecture = data.model.architecture.model_copy(update={"settings": settings_})
    text = frozen_text(data.model_copy(update={"model": data.model.model_copy(update={"architecture": architecture})}))
    with TemporaryDirectory() as folder:
        again = load(written(Path(folder), text)).experiment.model.architecture.settings["eps"]
    assert again.hex() == number.hex()


def test_every_default_is_written_out(tmp_path):
    loaded = load(written(tmp_path, VALID))
    assert list(yaml.safe_load(loaded.resolved)) == list(ORDER)
    assert set(ORDER) == set(Experiment.model_fields)
    for line in ("accumulation: 1", "betas: [0.9, 0.999]", "eps: 1.0e-08", "wandb: null", "memory: 2G", "nodes: 1"):
        assert f"  {line}\n" in loaded.resolved
    assert loaded.text == VALID


def test_order_and_form_of_the_file_do_not_matter(tmp_path):
    head, tail = VALID.split("model:\n", 1)
    turned = "model:\n" + tail.replace("01:30:00", '"01:30:00"').replace("1e-4", "0.1E-3") + head
    assert load(written(tmp_path, turned)).resolved == load(written(tmp_path, VALID)).resolved


@pytest.mark.parametrize("key", ["cluster", "image", "name", "seeds"])
def test_what_changes_no_result_is_not_in_the_recipe(key):
    assert key not in Recipe.model_fields


def test_cluster_changes_only_the_cluster(tmp_path):
    one = load(written(tmp_path, VALID)).experiment
    other = load(written(tmp_path, changed("cpus: 2", "cpus: 64\n  memory: 1T\n  parallel: 2"))).experiment
    recipe = set(Recipe.model_fields)
    assert one != other
    assert one.model_dump(include=recipe) == other.model_dump(include=recipe)
