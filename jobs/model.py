"""What is trained: an architecture with weights drawn from the seed, or a pretrained model; in full, or with LoRA adapters."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs import lora, pretrained
from jobs.determinism import undisturbed
from jobs.errors import Refused
from jobs.order import Purpose, mix

if TYPE_CHECKING:
    import torch

    from jobs.data import Corpus, TokenizerSource, Vocabulary
    from jobs.recipe import Architecture, Recipe

ATTENTION: Final = "eager"
"""Matrix products and a softmax, spelt out. `sdpa` chooses among fused kernels by GPU, shapes and mask, and with a padding mask
takes one whose backward pass is not deterministic on CUDA. Besides, every architecture of transformers has this one."""

NOT_SETTINGS: Final = {
    "vocab_size": "it comes from the data's tokenizer",
    "pad_token_id": "it comes from the data's tokenizer",
    "bos_token_id": "it comes from the data's tokenizer",
    "eos_token_id": "it comes from the data's tokenizer",
    "use_cache": "training has no use for it",
    "dtype": "weights are fp32; training.precision says what the forward pass computes in",
    "torch_dtype": "weights are fp32; training.precision says what the forward pass computes in",
    "attn_implementation": "it is always eager, which is deterministic everywhere",
    "architectures": "it follows from the type",
    "transformers_version": "the lock says it",
}
"""Fields of a transformers configuration that the recipe does not set, and why."""


def tokenizer_source(recipe: "Recipe", project_root: Path) -> "TokenizerSource | None":
    """Where the tokenizer of a pretrained model is; None where the model is written out. Verifies the files of a path first.

    Raises Refused."""
    origin = recipe.model.pretrained
    if origin is None or recipe.data.tokenizer != "pretrained":
        return None
    return pretrained.source(origin, project_root)


def build(recipe: "Recipe", seed: int, corpus: "Corpus", project_root: Path) -> "torch.nn.Module":
    """The model of a recipe in fp32 on the CPU, with `requires_grad` set on exactly what is trained.

    A pure function of the recipe, the seed and the pinned files: it does not depend on what was drawn before, and leaves the
    global generators as it found them. Raises Refused."""
    import torch

    with undisturbed():
        torch.manual_seed(mix(seed, Purpose.WEIGHTS) >> 1)
        if recipe.model.architecture is not None:
            model = _from_architecture(recipe.model.architecture, corpus.vocabulary)
        elif recipe.model.pretrained is not None:
            model = pretrained.load(recipe.model.pretrained, project_root, ATTENTION)
        else:  # the schema does not let it come to this
            raise Refused("model: neither architecture nor pretrained is given")
        model.config.use_cache = False
        _check_fit(model, corpus.vocabulary, recipe.data.max_length)
        if recipe.lora is None:
            model.requires_grad_(requires_grad=True)
        else:
            torch.manual_seed(mix(seed, Purpose.ADAPTERS) >> 1)
            model = lora.add(model, recipe.lora)
    return model  # type: ignore[no-any-return]


def _from_architecture(architecture: "Architecture", vocabulary: "Vocabulary") -> Any:
    """A causal language model with fresh weights. Raises Refused for a type or settings that transformers does not know."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = "model.architecture"
    _check_names(architecture)
    own = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
    }
    try:
        config = AutoConfig.for_model(architecture.type, **own, **architecture.settings)
        return AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=torch.float32)
    except Exception as error:  # each configuration class refuses in its own way
        reason = " ".join(str(error).split())
        raise Refused(f"{where}: transformers cannot make a {architecture.type} of these settings: {reason}") from error


def _check_names(architecture: "Architecture") -> None:
    """Raises Refused for a name that transformers would pass over in silence, with the valid ones."""
    from dataclasses import fields

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kinds = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if architecture.type not in kinds:
        raise Refused(
            f"model.architecture.type: {architecture.type} is not a causal language model of transformers."
            f"{_near(architecture.type, kinds)} There are: {', '.join(kinds)}"
        )
    kind = CONFIG_MAPPING[architecture.type]
    valid = sorted({field.name for field in fields(kind)} | set(kind.attribute_map))
    mistakes = []
    for name in architecture.settings:
        where = f"model.architecture.settings.{name}"
        if name in NOT_SETTINGS:
            mistakes.append(f"{where}: is not set here; {NOT_SETTINGS[name]}. Leave it out")
        elif name not in valid:
            names = ", ".join(one for one in valid if one not in NOT_SETTINGS)
            mistakes.append(f"{where}: {architecture.type} has no such setting.{_near(name, valid)} There are: {names}")
    if mistakes:
        raise Refused("\n".join(mistakes))


def _check_fit(model: Any, vocabulary: "Vocabulary", max_length: int) -> None:
    """Raises Refused where data and model do not fit: an id without an embedding, a position that does not exist."""
    embeddings = model.get_input_embeddings().num_embeddings
    if embeddings < vocabulary.size:
        raise Refused(
            f"data.tokenizer: has {vocabulary.size} tokens, but the model knows only {embeddings}. "
            "Use the tokenizer that belongs to the model"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise Refused(f"data.max_length: is {max_length}, but the model has {positions} positions")


def _near(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, 1)
    return f" Did you mean {near[0]}?" if near else ""
