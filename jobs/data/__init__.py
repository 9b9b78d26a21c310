"""What is learnt from: rows of a built-in or of files, as tokens, and batches of them in one constant shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import recipe
from jobs.data import arithmetic, files
from jobs.data.rows import IGNORED, Example, Rows, Text
from jobs.data.tokens import Characters, Pretrained, TokenizerSource, Vocabulary
from jobs.errors import Refused

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "Corpus", "Example", "Rows", "TokenizerSource", "Vocabulary", "collate", "load"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All data of a recipe."""

    train: Rows
    validation: Rows
    vocabulary: Vocabulary


def load(data: recipe.Data, project_root: Path, tokenizer_source: TokenizerSource | None) -> Corpus:
    """Make or read the rows, check every one, encode them.

    Raises Refused: a file or the rows made are not what is pinned; a row is broken, too long, or cannot be said in the
    vocabulary (all such rows, as `file:line`); the pretrained tokenizer cannot be loaded."""
    if data.builtin is not None:
        train, validation = arithmetic.make(data.builtin)
    elif data.files is not None:
        train = files.read(data.files.train, project_root)
        validation = files.read(data.files.validation, project_root)
    else:  # the schema does not let it come to this
        raise Refused("data: neither builtin nor files is given")
    if data.tokenizer == "characters":
        vocabulary: Vocabulary = Characters()
    elif tokenizer_source is not None:
        vocabulary = Pretrained(tokenizer_source)
    else:
        raise Refused("data.tokenizer: is pretrained, but model.pretrained is not given. Write characters")
    mistakes: list[str] = []
    corpus = Corpus(
        _encode(train, vocabulary, data.max_length, mistakes),
        _encode(validation, vocabulary, data.max_length, mistakes),
        vocabulary,
    )
    files.refuse(mistakes)
    return corpus


def collate(examples: Sequence[Example], pad_id: int, max_length: int) -> "dict[str, torch.Tensor]":
    """`input_ids`, `attention_mask` and `labels`, int64 [B, max_length], padded on the right.

    The length is constant, not that of the longest row of the batch: sums over another shape come out in another order, and
    a row's bits would depend on its neighbours."""
    import torch

    spare = [max_length - len(example.input_ids) for example in examples]
    ids = [example.input_ids + [pad_id] * rest for example, rest in zip(examples, spare, strict=True)]
    mask = [[1] * len(example.input_ids) + [0] * rest for example, rest in zip(examples, spare, strict=True)]
    labels = [example.labels + [IGNORED] * rest for example, rest in zip(examples, spare, strict=True)]
    return {
        "input_ids": torch.tensor(ids, dtype=torch.int64),
        "attention_mask": torch.tensor(mask, dtype=torch.int64),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def _encode(rows: list[Text], vocabulary: Vocabulary, max_length: int, mistakes: list[str]) -> Rows:
    """bos + prompt + completion + eos; what is wrong is added to `mistakes`."""

    def encoded() -> Iterator[tuple[list[int], int]]:
        before = [] if vocabulary.bos_id is None else [vocabulary.bos_id]
        after = [] if vocabulary.eos_id is None else [vocabulary.eos_id]
        for row in rows:
            try:
                # Apart, so that where the answer begins does not depend on how a tokenizer joins the two.
                prompt, completion = vocabulary.encode(row.prompt), vocabulary.encode(row.completion)
            except ValueError as error:
                mistakes.append(f"{row.where}: {error}")
                continue
            tokens = [*before, *prompt, *completion, *after]
            if len(tokens) > max_length:
                mistakes.append(
                    f"{row.where}: has {len(tokens)} tokens with bos and eos; data.max_length is {max_length}"
                )
                continue
            yield tokens, len(before) + len(prompt)

    return Rows(encoded(), answers=bool(rows[0].prompt))
