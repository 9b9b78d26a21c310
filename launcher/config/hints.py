"""Where a key that is not known here could belong, and what to write for one that is missing."""

import difflib
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from launcher.config.mistake import KeyPath, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

SYNONYMS: Final = {
    "learning_rate": "training.optimizer.lr",
    "seed": "seeds",
    "random_seed": "seeds",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "max_epochs": "training.epochs",
    "per_device_train_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.accumulation",
    "max_grad_norm": "training.clip_norm",
    "gradient_clipping": "training.clip_norm",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "dtype": "training.precision",
    "lr_scheduler": "training.schedule",
    "scheduler": "training.schedule",
    "num_workers": "data.workers",
    "dataset": "data",
    "max_seq_length": "data.max_length",
    "rank": "lora.r",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "modules_to_save": "lora.save_modules",
    "save_steps": "checkpoints.every_steps",
    "save_total_limit": "checkpoints.keep",
    "num_gpus": "cluster.gpus",
    "mem": "cluster.memory",
    "walltime": "cluster.time",
    "time_limit": "cluster.time",
    "experiment": "name",
    "experiment_name": "name",
}
"""What other tools call it: our key."""

ELSEWHERE: Final = {
    "resume": "There is nothing to set: a run goes on from its newest valid checkpoint by itself.",
    "partition": "Where a run happens is a flag, `--partition`, or the site's default in slurm/sites.",
    "account": "Where a run happens is a flag, `--account`, or the site's default in slurm/sites.",
    "qos": "Where a run happens is a flag, `--qos`, or the site's default in slurm/sites.",
    "site": "Where a run happens is a flag, `--site`.",
    "output_dir": "The tree is experiments/NAME; `--experiments` moves all trees.",
    "world_size": "A run uses one process for now.",
}
"""What has no key, and why."""

EXAMPLES: Final = {
    "name": "name: lora-r8",
    "seeds": "seeds: [0, 1, 2]",
    "model": "model: {architecture: {type: gpt2, settings: {n_layer: 2, n_embd: 64}}}",
    "model.architecture.type": "type: gpt2",
    "lora": "lora: {r: 8, alpha: 16, target_modules: [c_attn]}",
    "lora.r": "r: 8",
    "lora.alpha": "alpha: 16",
    "lora.target_modules": "target_modules: [c_attn]",
    "data": "data: {builtin: {name: arithmetic, ...}, max_length: 32}",
    "data.max_length": "max_length: 32",
    "data.builtin.name": "name: arithmetic",
    "data.builtin.train_rows": "train_rows: 4000",
    "data.builtin.validation_rows": "validation_rows: 500",
    "data.builtin.sha256": "sha256: 64 hex digits",
    "data.files.train": "train: {path: data/train.jsonl, sha256: ...}",
    "data.files.validation": "validation: {path: data/validation.jsonl, sha256: ...}",
    "data.files.train.path": "path: data/train.jsonl",
    "data.files.train.sha256": "sha256: what `sha256sum data/train.jsonl` prints",
    "data.files.validation.path": "path: data/validation.jsonl",
    "data.files.validation.sha256": "sha256: what `sha256sum data/validation.jsonl` prints",
    "training": "training: {epochs: 3, batch_size: 16, optimizer: {lr: 3e-4}}",
    "training.epochs": "epochs: 3",
    "training.batch_size": "batch_size: 16",
    "training.optimizer": "optimizer: {lr: 3e-4}",
    "training.optimizer.lr": "lr: 3e-4",
    "tracking.wandb.project": "project: my-project",
}
"""A line for every key that must be given. A test compares with the schema."""

FORMS: Final = {
    "cluster.memory": "memory: 2G",
    "cluster.time": "time: 01:30:00",
    "time": "time: 01:30:00",
}
"""Texts that people write as numbers: how they look."""

REASONS: Final = {
    "seeds": "Every run has an explicit seed and there is no default: a result without its seed cannot be reproduced.",
    "lora": "`lora: null` trains the whole model.",
    "training.optimizer.lr": "No learning rate is a good default.",
}

ENOUGH: Final = 0.75
"""How alike two keys must be, by difflib's ratio, to be taken for a slip of the finger."""


def _core(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _core(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _core(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _inside(annotation: Any, part: str | int) -> Any:
    """The annotation of what a key or a number leads to; None where the schema ends."""
    core = _core(annotation)
    if _is_section(core):
        known = core.model_fields.get(str(part))
        return known.annotation if known else None
    return get_args(core)[-1] if get_origin(core) in (dict, list) else None


def section_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The section that a path leads to; None where it leads to something without fixed keys."""
    here: Any = model
    for part in path:
        here = _inside(here, part)
    found = _core(here)
    return found if _is_section(found) else None


def fields(model: type[BaseModel], path: KeyPath = ()) -> "Iterator[tuple[KeyPath, FieldInfo]]":
    """Every key of a schema by its path, with its field. A free key in between is written `NAME`."""
    for name, info in model.model_fields.items():
        here: KeyPath = (*path, name)
        yield here, info
        inner = _core(info.annotation)
        if get_origin(inner) is dict:
            inner, here = _core(get_args(inner)[1]), (*here, "NAME")
        if _is_section(inner):
            yield from fields(inner, here)


def unknown(model: type[BaseModel], path: KeyPath) -> tuple[str, KeyPath | None]:
    """A hint about an unknown key, and the key that was probably meant."""
    *section, key = path
    name = str(key)
    known = list((section_at(model, tuple(section)) or model).model_fields)
    everywhere = [place for place, _ in fields(model)]
    if meant := SYNONYMS.get(name.lower()):
        target = tuple(meant.split("."))
        if target in everywhere:
            return f"Here it is called `{meant}`.", target
    begun = [word for word in known if word.startswith(f"{name.lower()}_")]
    if near := close(name, known) or (begun[0] if len(begun) == 1 else None):
        return f"Did you mean `{near}`?", (*section, near)
    if len(homes := [field for field in everywhere if field[-1] == name]) in (1, 2):
        places = " or ".join(f"under `{dotted(home[:-1])}`" if home[:-1] else "at the top level" for home in homes)
        return f"It belongs {places}.", homes[0] if len(homes) == 1 else None
    if name.lower() in ELSEWHERE and "name" in model.model_fields:
        return ELSEWHERE[name.lower()], None
    if near := close(name, [str(field[-1]) for field in everywhere]):
        home = next(field for field in everywhere if field[-1] == near)
        return f"Did you mean `{dotted(home)}`?", home
    return f"Known here: {', '.join(known)}.", None


def close(name: str, known: list[str], enough: float = ENOUGH) -> str | None:
    """The known word that was probably meant."""
    plain = {word.lower().replace("-", "_"): word for word in known}
    near = difflib.get_close_matches(name.lower().replace("-", "_"), plain, 1, enough)
    return plain[near[0]] if near else None


def missing(path: KeyPath) -> str:
    """What to write for a key that must be given."""
    key = dotted(path)
    example = EXAMPLES.get(key)
    where = f" under `{dotted(path[:-1])}`" if path[:-1] else ""
    parts = [f"Add `{example}`{where}." if example else "", REASONS.get(key, "")]
    return " ".join(part for part in parts if part)
