"""Models: weights that follow from the seed alone, names that exist, and exactly what the recipe says is trained."""

from pathlib import Path

import pytest
import torch
from content_samples import GPT2, LORA, generators, recipe, sha256
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedTokenizerFast

from jobs import data, model
from jobs.errors import Refused

ROOT = Path("/nowhere")


def corpus_of(made, root=ROOT):
    return data.load(made.data, root, model.tokenizer_source(made, root))


def build(made=None, seed=0, root=ROOT):
    made = made or recipe()
    return model.build(made, seed, corpus_of(made, root), root)


def architecture(**settings):
    kind = settings.pop("type", "gpt2")
    return {"architecture": {"type": kind, "settings": settings}}


def refusal(root=ROOT, **sections) -> str:
    with pytest.raises(Refused) as caught:
        build(recipe(**sections), root=root)
    return str(caught.value)


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_follow_from_the_seed_and_from_nothing_else():
    first = build(seed=1)
    torch.manual_seed(99)
    torch.rand(7)
    assert equal(first, build(seed=1))
    assert not equal(first, build(seed=2))


def test_adapters_do_not_change_the_weights_under_them():
    plain, adapted = build(recipe(lora=None), seed=5), build(seed=5)
    assert torch.equal(
        plain.transformer.h[0].mlp.c_fc.weight, adapted.base_model.model.transformer.h[0].mlp.c_fc.weight
    )


def test_the_callers_generators_are_left_as_they_were():
    before = generators()
    build()
    assert before == generators()


def test_the_vocabulary_comes_from_the_data():
    config = build().config
    assert (config.vocab_size, config.pad_token_id, config.bos_token_id, config.eos_token_id) == (98, 0, 1, 2)
    assert config._attn_implementation == "eager"
    assert config.use_cache is False


def test_lora_trains_what_it_says():
    network = build()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    head = "base_model.model."
    assert trained == {
        *(
            f"{head}transformer.h.0.{layer}.lora_{part}.default.weight"
            for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
            for part in "AB"
        ),
        f"{head}transformer.wte.modules_to_save.default.weight",
        f"{head}lm_head.modules_to_save.default.weight",
    }
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # in the first step B is zero, so A has no gradient
        ids = torch.tensor([[1, 20, 30, 2]])
        network(input_ids=ids).logits.square().sum().backward()
        optimizer.step()
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == trained


def test_without_lora_everything_is_trained():
    assert all(parameter.requires_grad for parameter in build(recipe(lora=None)).parameters())


def test_adapters_begin_as_nothing():
    ids = torch.tensor([[1, 20, 30, 2]])
    plain, adapted = build(recipe(lora=None)).eval(), build().eval()
    assert torch.equal(plain(input_ids=ids).logits, adapted(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_modules": ["q_proj"]}, "lora.target_modules: the model has no module q_proj"),
        ({"save_modules": ["embed_tokens"]}, "lora.save_modules: the model has no module embed_tokens"),
        ({"target_modules": ["c_attn", "attn2"]}, "lora.target_modules: the model has no module attn2"),
        (
            {"target_modules": ["lm_head"], "save_modules": ["lm_head"]},
            "lm_head is in target_modules and in save_modules",
        ),
    ],
)
def test_modules_that_match_nothing_are_refused_with_those_there_are(changes, said):
    message = refusal(lora={**LORA, **changes})
    assert said in message
    assert "Its linear modules are: c_attn, c_proj, c_fc, lm_head" in message
    assert "Its embeddings are: wte, wpe" in message


def test_a_module_that_takes_no_adapter_is_refused():
    assert "LayerNorm" in refusal(lora={**LORA, "target_modules": ["ln_1"]})


def test_shared_embeddings_stay_shared_or_are_refused():
    tied = architecture(**{**GPT2, "tie_word_embeddings": True})
    assert "lm_head and wte share one weight" in refusal(model=tied, lora={**LORA, "save_modules": ["wte"]})
    assert "lm_head and wte share one weight" in refusal(model=tied, lora={**LORA, "save_modules": ["lm_head"]})
    network = build(recipe(model=tied, lora={**LORA, "save_modules": ["wte", "lm_head"]}))
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight
    assert network.get_input_embeddings().weight.requires_grad
    build(recipe(model=tied, lora={**LORA, "save_modules": []}))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            architecture(type="gtp2"),
            "gtp2 is not a causal language model of transformers. Did you mean gpt2? There are: ",
        ),
        (architecture(n_emb=8), "settings.n_emb: gpt2 has no such setting. Did you mean n_embd? There are: "),
        (architecture(vocab_size=7), "settings.vocab_size: is not set here; it comes from the data's tokenizer"),
        (architecture(use_cache=True), "settings.use_cache: is not set here"),
        (architecture(n_embd="8"), "transformers cannot make a gpt2 of these settings: "),
        (architecture(n_embd=8, n_head=3), "transformers cannot make a gpt2 of these settings: "),
        (architecture(**{**GPT2, "n_positions": 4}), "data.max_length: is 8, but the model has 4 positions"),
    ],
)
def test_an_architecture_that_is_none_is_refused(section, said):
    assert said in refusal(model=section)


def test_settings_go_by_either_of_their_names():
    network = build(recipe(model=architecture(hidden_size=16, n_layer=1, n_head=2), lora=None))
    assert network.config.n_embd == 16


# A pretrained model: made here, saved as transformers saves it, pinned file by file.


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    words = ["<pad>", "<s>", "</s>", "<unk>", *"0123456789+=", "1+"]
    fast = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106 - a token of text
    fast.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=fast, **names).save_pretrained(root / "model")
    torch.manual_seed(1)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=16))
    network.to(torch.bfloat16).save_pretrained(root / "model")
    return root


def section(root: Path, **changes: str) -> dict:
    hashes = {path.name: sha256(path) for path in (root / "model").iterdir()}
    return {"pretrained": {"path": "model", "sha256": {**hashes, **changes}}}


def with_own_tokenizer() -> dict:
    return {**recipe().data.model_dump(), "tokenizer": "pretrained"}


def test_a_pretrained_model_and_its_tokenizer_come_from_verified_files(pretrained):
    made = recipe(model=section(pretrained), data=with_own_tokenizer(), lora={**LORA, "save_modules": []})
    network = build(made, root=pretrained)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    saved = GPT2LMHeadModel.from_pretrained(pretrained / "model", dtype=torch.float32)
    assert torch.equal(network.base_model.model.transformer.wpe.weight, saved.transformer.wpe.weight)
    corpus = corpus_of(made, pretrained)
    assert (corpus.vocabulary.size, corpus.vocabulary.pad_id, corpus.vocabulary.bos_id) == (17, 0, 1)
    row = corpus.train[0]
    assert (row.input_ids[0], row.input_ids[-1]) == (1, 2)
    assert len(row.input_ids) == 8


def test_a_pretrained_file_that_changed_is_refused_before_it_is_read(pretrained):
    message = refusal(root=pretrained, model=section(pretrained, **{"model.safetensors": "0" * 64}), lora=None)
    assert "model/model.safetensors is not the file that the config pins. Pinned: 000" in message
    assert f"it has: {sha256(pretrained / 'model' / 'model.safetensors')}" in message


def test_a_pretrained_file_that_is_missing_or_not_pinned_is_refused(pretrained):
    message = refusal(root=pretrained, model=section(pretrained, **{"extra.json": "0" * 64}), lora=None)
    assert "model/extra.json cannot be read: No such file" in message
    named = section(pretrained)
    del named["pretrained"]["sha256"]["generation_config.json"]
    assert "generation_config.json could be read, but is not pinned" in refusal(root=pretrained, model=named, lora=None)


def test_a_tokenizer_larger_than_the_model_is_refused(pretrained):
    assert "has 98 tokens, but the model knows only 17" in refusal(
        root=pretrained, model=section(pretrained), lora=None
    )


def test_pickled_weights_are_not_opened(pretrained, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((pretrained / "model" / "config.json").read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    assert "cannot be loaded as a causal language model from safetensors" in refusal(
        root=tmp_path, model=section(tmp_path), lora=None
    )


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    body = GPT2Model(GPT2Config(vocab_size=98, n_embd=16, n_layer=2, n_head=2, n_positions=16))
    body.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "h.1." not in name}
    save_file(kept, path, metadata={"format": "pt"})
    assert "lacks weights of a causal language model" in refusal(root=tmp_path, model=section(tmp_path), lora=None)


def test_a_hub_that_cannot_be_reached_is_refused_with_the_command_that_fetches(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    revision = "a" * 40
    message = refusal(model={"pretrained": {"id": "nobody/nothing", "revision": revision}}, lora=None)
    assert "model.pretrained.id: nobody/nothing" in message
    assert f"hf download nobody/nothing --revision {revision}" in message
