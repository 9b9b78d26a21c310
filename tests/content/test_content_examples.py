"""The shipped examples, run for real as `python -m jobs` runs them; the quickstart has tests of its own in tests/street."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from content_samples import specification

from jobs import data, model
from jobs.data import files
from jobs.errors import Refused
from jobs.recipe import Recipe
from jobs.rundir import RunDir
from launcher.config.load import load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "configs" / "examples"


def recipe_of(name: str) -> Recipe:
    experiment = load(EXAMPLES / f"{name}.yaml").experiment
    return Recipe.model_validate({key: getattr(experiment, key) for key in Recipe.model_fields})


@pytest.fixture(scope="module", params=["full", "files"])
def finished(request, tmp_path_factory) -> RunDir:
    name = request.param
    run = RunDir(tmp_path_factory.mktemp("experiments") / name, 0)
    run.artifacts.mkdir(parents=True)
    made = specification().model_copy(
        update={"experiment": name, "seed": 0, "project_root": str(ROOT), "recipe": recipe_of(name)}
    )
    run.specification.write_text(made.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "jobs", str(run.specification)],
        env={**os.environ, "HOME": "/nonexistent"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr  # nothing that a person would have to wonder about
    return run


def lines(run: RunDir) -> list[dict]:
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def test_an_example_learns_and_leaves_a_whole_tree(finished):
    done = json.loads(finished.done.read_text())
    assert done["val_loss"] < done["val_loss_before"] - 1
    assert (finished.checkpoints / done["checkpoint"]).exists()
    assert finished.provenance.exists()
    assert list((finished.metrics / "tensorboard").glob("events.out.tfevents.*"))
    evaluations = [line for line in lines(finished) if line["kind"] == "evaluation"]
    assert all(line["accuracy"] is not None and line["gpu_reason"] == "runs on the cpu" for line in evaluations)
    assert (finished.metrics / "wandb").exists() == (finished.name == "full")


def test_the_hub_example_names_rows_that_are_there_and_a_model_that_is_not_here():
    made = recipe_of("hub")
    for file in (made.data.files.train, made.data.files.validation):
        assert files.read(file, ROOT)
    source = model.tokenizer_source(made, ROOT)
    assert source == (made.model.pretrained.id, made.model.pretrained.revision)


def test_a_hub_that_is_away_is_refused_before_anything_is_trained(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made = recipe_of("hub")
    with pytest.raises(
        Refused,
        match=r"the tokenizer of openai-community/gpt2 cannot be loaded(.|\n)*hf download openai-community/gpt2",
    ):
        data.load(made.data, ROOT, model.tokenizer_source(made, ROOT))
