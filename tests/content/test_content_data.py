"""Rows of files, characters to tokens, and batches: every mistake as file:line, every batch in one shape."""

import json

import pytest
import torch
from content_samples import ZERO, jsonl, recipe, sha256
from hypothesis import given
from hypothesis import strategies as st

from jobs import data
from jobs.data.tokens import ALPHABET, Characters
from jobs.errors import Refused

GOOD = {"prompt": "1+1=", "completion": "2"}


def load(tmp_path, *rows, max_length=16):
    file = jsonl(tmp_path / "rows.jsonl", *rows)
    section = {"files": {"train": file, "validation": file}, "max_length": max_length}
    return data.load(recipe(data=section).data, tmp_path, None)


def refusal(tmp_path, *rows, **options) -> str:
    with pytest.raises(Refused) as caught:
        load(tmp_path, *rows, **options)
    return str(caught.value)


def test_only_the_completion_counts(tmp_path):
    corpus = load(tmp_path, GOOD)
    row = corpus.train[0]
    assert row.input_ids[0] == corpus.vocabulary.bos_id
    assert row.input_ids[-1] == corpus.vocabulary.eos_id
    assert corpus.vocabulary.decode(row.input_ids) == "1+1=2"
    assert row.labels == [data.IGNORED] * 5 + row.input_ids[5:]
    assert corpus.train.answers


def test_of_text_everything_counts_but_the_start(tmp_path):
    corpus = load(tmp_path, {"text": "hello"}, {"text": "you"})
    row = corpus.train[1]
    assert row.labels == [data.IGNORED, *row.input_ids[1:]]
    assert not corpus.train.answers
    assert len(corpus.train) == 2
    with pytest.raises(IndexError):
        corpus.train[2]


def test_empty_lines_are_no_rows_but_count_as_lines(tmp_path):
    assert "rows.jsonl:4: is not JSON" in refusal(tmp_path, GOOD, "", "  ", "{")
    assert len(load(tmp_path, GOOD, "", GOOD).train) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"text": "a"', "is not JSON: Expecting ',' delimiter, at character 13"),
        ('"text"', "is not an object"),
        ("{}", "has nothing; a row has either text, or prompt and completion"),
        ({"prompt": "a"}, "has prompt; a row has"),
        ({"prompt": "a", "completion": "b", "answer": "c"}, "has answer, completion, prompt; a row has"),
        ({"prompt": "a", "completion": 3}, "completion is not text: 3"),
        ({"prompt": "", "completion": "3"}, "prompt is empty"),
        ('{"text": "a", "text": "b"}', "gives a key twice"),
        ({"text": "a"}, "has text, but rows.jsonl:1 has prompt and completion; a file holds one kind"),
        (
            {"prompt": "na", "completion": "\u00efve"},
            "holds '\u00ef' (U+00EF) at character 1, which is not printable ASCII",
        ),
        ({"prompt": "a\tb", "completion": "c"}, "holds '\\t' (U+0009) at character 2"),
        ({"prompt": "12345678+1=", "completion": "12345679"}, "has 21 tokens with bos and eos; data.max_length is 16"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path, row, said):
    message = refusal(tmp_path, GOOD, row)
    assert message.startswith("rows.jsonl:2: ")
    assert said in message


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"text": "\xff"}\n')
    file = {"path": path.name, "sha256": sha256(path)}
    section = {"files": {"train": file, "validation": file}, "max_length": 16}
    with pytest.raises(Refused, match=r"rows\.jsonl:2: is not UTF-8, at byte 11"):
        data.load(recipe(data=section).data, tmp_path, None)


def test_all_broken_rows_come_at_once_and_a_flood_is_counted(tmp_path):
    message = refusal(tmp_path, GOOD, "{", {"prompt": "a"})
    assert [line.split(": ")[0] for line in message.splitlines()] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert refusal(tmp_path, *["{"] * 50).splitlines()[-1] == "and 30 more"


def test_another_file_than_the_one_pinned_is_refused_naming_both_hashes(tmp_path):
    file = jsonl(tmp_path / "rows.jsonl", GOOD)
    section = {"files": {"train": {**file, "sha256": ZERO}, "validation": file}, "max_length": 16}
    with pytest.raises(Refused, match=f"rows.jsonl: .* Pinned: {ZERO}; it has: {file['sha256']}"):
        data.load(recipe(data=section).data, tmp_path, None)


def test_files_that_are_missing_or_empty_are_refused(tmp_path):
    section = {
        "files": {key: {"path": "none.jsonl", "sha256": ZERO} for key in ("train", "validation")},
        "max_length": 16,
    }
    with pytest.raises(Refused, match=r"none\.jsonl: cannot be read: No such file"):
        data.load(recipe(data=section).data, tmp_path, None)
    assert "holds no row" in refusal(tmp_path, "")


@given(st.text(ALPHABET))
def test_characters_come_back(text):
    vocabulary = Characters()
    ids = vocabulary.encode(text)
    assert len(ids) == len(text)
    assert vocabulary.decode([vocabulary.bos_id, *ids, vocabulary.eos_id, vocabulary.pad_id]) == text
    assert all(vocabulary.eos_id < i < vocabulary.size for i in ids)


def test_the_alphabet_never_changes():
    """Golden: the ids of trained models depend on it."""
    assert Characters().encode(" 0=A~") == [3, 19, 32, 36, 97]
    assert Characters.size == 98


def test_a_batch_has_one_shape_whatever_its_rows(tmp_path):
    corpus = load(tmp_path, GOOD, {"prompt": "11+11=", "completion": "22"})
    short, both = (data.collate([*corpus.train][:count], 0, 16) for count in (1, 2))
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in both.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), (torch.int64, (2, 16))
    )
    for name, tensor in short.items():
        assert torch.equal(tensor[0], both[name][0])
    assert both["attention_mask"].sum(1).tolist() == [7, 10]
    assert (both["labels"][both["attention_mask"] == 0] == data.IGNORED).all()
    assert (both["input_ids"][both["attention_mask"] == 0] == 0).all()
