"""The built-in data: the same rows for ever, no held-out row trained on, and no other rows than those pinned."""

import hashlib
import subprocess
import sys

import pytest
from content_samples import ZERO, builtin
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data import arithmetic
from jobs.errors import Refused


def operands(prompt: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, prompt.rstrip("=").split("+"))))


def test_the_rows_never_change():
    """Golden: another hash means that every experiment on this data has other bits."""
    train, validation = arithmetic.make(
        builtin(2, 4480, 500, "84ab5d308a14c937d31c41162cd9c392de5598681f08af87a354891fca287c4f")
    )
    assert [row.prompt + row.completion for row in train[:3]] == ["31+62=093", "02+59=061", "99+59=158"]
    lines = ["train", *(a + b for a, b, _ in train), "validation", *(a + b for a, b, _ in validation)]
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert digest == "84ab5d308a14c937d31c41162cd9c392de5598681f08af87a354891fca287c4f"


def test_the_rows_depend_on_no_library():
    """Neither torch nor numpy is even loaded to make them."""
    code = "import sys; import jobs.data.arithmetic; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("digits", [1, 2])
def test_every_sum_is_there_once_and_right(digits):
    rows = [arithmetic.row(number, digits) for number in range(arithmetic.count(digits))]
    assert len({operands(prompt) for prompt, _ in rows}) == len(rows) == arithmetic.count(digits)
    assert all(sum(operands(prompt)) == int(answer) for prompt, answer in rows)
    assert {len(prompt + answer) for prompt, answer in rows} == {3 * digits + 3}


@given(st.integers(1, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_no_held_out_sum_is_trained_on_in_either_order(digits, data):
    existing = arithmetic.count(digits)
    train = data.draw(st.integers(1, min(existing - 1, 300)))
    validation = data.draw(st.integers(1, min(existing - train, 300)))
    made = arithmetic.make(builtin(digits, train, validation))
    trained, held_out = ({operands(row.prompt) for row in part} for part in made)
    assert (len(trained), len(held_out)) == (train, validation)
    assert not trained & held_out


def test_more_training_rows_leave_the_held_out_rows_alone():
    assert arithmetic.make(builtin(2, 100, 50))[1] == arithmetic.make(builtin(2, 4000, 50))[1]


def test_other_rows_than_those_pinned_are_refused_with_the_right_hash():
    right = builtin().sha256
    with pytest.raises(Refused, match=f"pins {ZERO}, but the rows made have {right}"):
        arithmetic.make(builtin(digest=ZERO))


def test_more_rows_than_there_are_is_refused():
    assert len(arithmetic.make(builtin(1, 50, 5))[0]) == 50
    with pytest.raises(Refused, match="50 \\+ 6, but there are only 55 additions of 1 digits"):
        arithmetic.make(builtin(1, 50, 6, ZERO))
