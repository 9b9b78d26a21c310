"""Evaluation: the numbers are what a person would count by hand, and measuring changes nothing."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from content_samples import generators, recipe
from transformers import set_seed

from jobs import data, model
from jobs.data import Example
from jobs.data.rows import Rows
from jobs.evaluate import evaluate

CPU = torch.device("cpu")
ROOT = Path("/nowhere")


class Knows(torch.nn.Module):
    """Predicts after token t the token `after[t]`, with odds of `odds` against each other token of ten."""

    def __init__(self, after: dict[int, int], odds: float) -> None:
        super().__init__()
        self.table = torch.zeros(10, 10)
        for token, following in after.items():
            self.table[token, following] = torch.log(torch.tensor(odds))

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"logits": self.table[input_ids]})


def rows_of(*rows: tuple[list[int], int], answers: bool = True) -> Rows:
    return Rows(rows, answers=answers)


def measure(network, rows, *, batch_size=2, length=6, stop=lambda: False):
    return evaluate(
        network,
        rows,
        batch_size=batch_size,
        collate=lambda examples: data.collate(examples, 0, length),
        device=CPU,
        autocast=contextlib.nullcontext,
        stop=stop,
    )


def test_the_numbers_are_those_counted_by_hand():
    """Odds 3 against 9 others: the known token has probability 3/12, any other 1/12."""
    network = Knows({5: 6, 6: 7, 7: 2}, 3.0)
    rows = rows_of(([1, 5, 6, 7], 2), ([1, 5, 6, 8], 2), ([1, 5, 7], 2))
    # counted: 6 after 5 (known), 7 after 6 (known) | 6 (known), 8 after 6 (not) | 7 after 5 (not)
    known, unknown = -np.log(3 / 12), -np.log(1 / 12)
    for batch_size in (1, 2, 3, 10):
        found = measure(network, rows, batch_size=batch_size)
        assert found.loss == pytest.approx((3 * known + 2 * unknown) / 5, rel=1e-6)
        assert found.accuracy == 1 / 3  # one wrong token makes a row wrong; padding and prompt make none
        assert found.rows == 3


def test_rows_without_an_answer_have_no_accuracy():
    assert measure(Knows({}, 1.0), rows_of(([1, 5, 6], 1), answers=False)).accuracy is None


def test_rows_of_which_nothing_counts_are_an_error():
    with pytest.raises(ValueError, match="no token counts"):
        measure(Knows({}, 1.0), rows_of(([1, 5], 2)))


@pytest.fixture(scope="module")
def real():
    made = recipe(lora={"r": 2, "alpha": 4, "target_modules": ["c_attn"], "dropout": 0.5})
    corpus = data.load(made.data, ROOT, None)
    return model.build(made, 0, corpus, ROOT), corpus


def test_the_same_twice_to_the_bit_though_the_model_has_dropout(real):
    network, corpus = real
    network.train()
    assert measure(network, corpus.validation, length=8) == measure(network, corpus.validation, length=8)


def test_other_batches_are_the_same_rows(real):
    """Not to the bit: products of another shape may sum in another order."""
    network, corpus = real
    one, all_at_once = (measure(network, corpus.validation, batch_size=size, length=8) for size in (1, 10))
    assert one.loss == pytest.approx(all_at_once.loss, rel=1e-5)
    assert (one.accuracy, one.rows) == (all_at_once.accuracy, all_at_once.rows)


def test_measuring_changes_nothing(real):
    network, corpus = real
    set_seed(4)
    network.train()
    network.base_model.model.transformer.h[0].eval()  # a module that its owner froze
    modes = [module.training for module in network.modules()]
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    before = generators()
    measure(network, corpus.validation, length=8)
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    assert before == generators()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_stops_between_two_batches_and_leaves_the_model_in_training(real):
    network, corpus = real
    network.train()
    asked = iter([False, False, True])
    assert measure(network, corpus.validation, batch_size=3, length=8, stop=lambda: next(asked)) is None
    assert network.training
    assert next(asked, None) is None


def test_an_example_is_a_row():
    rows = rows_of(([1, 5, 6], 2))
    assert list(rows) == [Example([1, 5, 6], [-100, -100, 6])]
