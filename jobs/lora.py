"""LoRA adapters of peft, put where the recipe says, and refused where it says nothing that exists."""

import warnings
from typing import TYPE_CHECKING, Any

from jobs.errors import Refused

if TYPE_CHECKING:
    from jobs.recipe import Lora


def add(model: Any, recipe: "Lora") -> Any:
    """The model with adapters: only they and `save_modules` are trained. Draws from torch's global generator.

    Raises Refused for names that match no module: peft passes over them as long as another one matches."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    targets = [name for name in modules if _matches(name, recipe.target_modules)]
    _check(modules, recipe)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.target_modules),
        modules_to_save=list(recipe.save_modules) or None,
        # gpt2 and its kin keep their weights the other way round.
        fan_in_fan_out=all(isinstance(modules[name], Conv1D) for name in targets),
        ensure_weight_tying=_keeps_tie(_tied(model), recipe),
    )
    try:
        with warnings.catch_warnings():
            # peft asks transformers for a property by its former name: nothing that a user could mend.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return get_peft_model(model, config)
    except ValueError as error:  # a module of a kind that peft has no adapter for
        raise Refused(f"lora: {error}") from error


def _matches(module: str, names: list[str]) -> bool:
    """As peft matches a list: the whole name, or its last parts."""
    return any(module == name or module.endswith(f".{name}") for name in names)


def _check(modules: dict[str, Any], recipe: "Lora") -> None:
    mistakes: list[str] = []
    for key in ("target_modules", "save_modules"):
        missing = [
            name for name in getattr(recipe, key) if not any(_matches(module, [name]) for module in modules if module)
        ]
        mistakes += [f"lora.{key}: the model has no module {name}" for name in missing]
    both = [name for name in recipe.target_modules if name in recipe.save_modules]
    mistakes += [f"lora: {name} is in target_modules and in save_modules; it can be in one of them" for name in both]
    if mistakes:
        mistakes.append(f"Its linear modules are: {', '.join(_linear(modules))}")
        mistakes.append(f"Its embeddings are: {', '.join(_embeddings(modules))}")
        raise Refused("\n".join(mistakes))


def _linear(modules: dict[str, Any]) -> list[str]:
    """Last parts of the names of the modules that can get an adapter, each once, in the model's order."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return list(dict.fromkeys(n.rsplit(".", 1)[-1] for n, m in modules.items() if isinstance(m, Linear | Conv1D)))


def _embeddings(modules: dict[str, Any]) -> list[str]:
    from torch.nn import Embedding

    return list(dict.fromkeys(n.rsplit(".", 1)[-1] for n, m in modules.items() if isinstance(m, Embedding)))


def _tied(model: Any) -> set[str]:
    """Last parts of the names of input and output embeddings, where they share one weight; else empty."""
    into, out = model.get_input_embeddings(), model.get_output_embeddings()
    if into is None or out is None or into.weight is not out.weight:
        return set()
    return {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module is into or module is out}


def _keeps_tie(tied: set[str], recipe: "Lora") -> bool:
    """Whether both ends of a shared weight are trained in full, and so must go on sharing it.

    Raises Refused for one without the other: peft would copy it, and the two would part without a word."""
    saved = {name.rsplit(".", 1)[-1] for name in recipe.save_modules} & tied
    if saved and saved != tied:
        raise Refused(
            f"lora.save_modules: {' and '.join(sorted(tied))} share one weight in this model; name both, or neither. "
            "Or, where the architecture is written out, set tie_word_embeddings: false"
        )
    return bool(saved)
