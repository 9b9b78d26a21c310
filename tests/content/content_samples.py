"""Recipes, specifications and small pretrained models for the tests of the run's content."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.data import arithmetic
from jobs.recipe import Builtin, Recipe, Specification
from jobs.rundir import RunDir

ZERO = "0" * 64
LAYERS = ["c_attn", "c_proj", "c_fc"]
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "tie_word_embeddings": False}
LORA = {"r": 2, "alpha": 4, "target_modules": LAYERS, "save_modules": ["wte", "lm_head"]}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def builtin(digits: int = 1, train: int = 40, validation: int = 10, digest: str | None = None) -> Builtin:
    """Pinned right, unless a hash is given."""
    rows = range(train), range(arithmetic.count(digits) - 1, arithmetic.count(digits) - 1 - validation, -1)
    made = [[arithmetic.Text(*arithmetic.row(number, digits), "") for number in part] for part in rows]
    return Builtin(
        name="arithmetic",
        digits=digits,
        train_rows=train,
        validation_rows=validation,
        sha256=digest or arithmetic.digest(*made),
    )


def recipe(**sections: Any) -> Recipe:
    """A whole recipe, with sections put in the place of its own."""
    value = {
        "model": {"architecture": {"type": "gpt2", "settings": GPT2}},
        "lora": LORA,
        "data": {"builtin": builtin().model_dump(), "max_length": 8},
        "training": {"epochs": 1, "batch_size": 8, "optimizer": {"name": "adamw", "lr": 1e-2}},
        **sections,
    }
    return Recipe.model_validate(value)


def specification(**sections: Any) -> Specification:
    made = recipe(**sections)
    value = {
        "format": 1,
        "experiment": "sample",
        "seed": 3,
        "seeds": [3, 4],
        "commit": "c" * 40,
        "dirty": False,
        "config_sha256": "d" * 64,
        "image": {
            "engine": "host",
            "environment": f"sha256:{'e' * 64}",
            "code": f"git-tree:{'f' * 40}",
            "python": "3.11.2",
        },
        "project_root": "/nowhere",
        "launched": {"host": "login"},
        "recipe": made.model_dump(),
    }
    return Specification.model_validate_json(json.dumps(value))


def tree(folder: Path) -> RunDir:
    """The folders of a run, with its experiment's config."""
    run = RunDir(folder / "sample", 3)
    for part in run.folders:
        part.mkdir(parents=True)
    (run.root / "config.yaml").write_text("name: sample\n")
    return run


def jsonl(path: Path, *rows: Any) -> dict[str, str]:
    """Write rows, those that are text as they are, and give the file as the recipe names it."""
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return {"path": path.name, "sha256": sha256(path)}


def generators() -> list[Any]:
    """Where the global generators stand, to be compared."""
    array = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is what is asked about
    return [random.getstate(), array, torch.get_rng_state().tolist()]
