"""What is watched changes nothing: the bits of a run are the same with every tracker and loader worker, and with none."""

import json
import os
import subprocess
import sys

import pytest
from content_samples import LORA, specification, tree

QUIET = {"tensorboard": False, "wandb": None}
WATCHED = {"tensorboard": True, "wandb": {"project": "samples"}}


def finish(folder, tracking, workers) -> tuple[dict, str]:
    run = tree(folder)
    made = specification(tracking=tracking, lora={**LORA, "dropout": 0.2})
    sections = made.recipe.model_dump()
    sections["data"]["workers"] = workers
    run.specification.write_text(
        made.model_copy(update={"recipe": made.recipe.model_validate(sections)}).model_dump_json()
    )
    done = subprocess.run(
        [sys.executable, "-m", "jobs", str(run.specification)],
        env={**os.environ, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    assert "WARNING" not in done.stdout
    return json.loads(run.done.read_text()), run.ledger.read_text()


@pytest.mark.timeout(400)
def test_trackers_and_workers_change_no_bit(tmp_path):
    watched, its_ledger = finish(tmp_path / "watched", WATCHED, 2)
    alone, ledger = finish(tmp_path / "alone", QUIET, 0)
    assert its_ledger == ledger
    assert watched["sha256"] == alone["sha256"]
    assert watched["val_loss"] == alone["val_loss"]
