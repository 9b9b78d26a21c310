"""Whatever stands in a file, it is a config or a clear refusal: never a traceback, never an unmapped error of pydantic."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

from config_samples import VALID, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.config.load import load
from launcher.config.words import KINDS
from launcher.errors import LaunchError

PIECES = [
    *"\t\0:{}[]'\"&*!|>%@`#,-?\n ",
    *("\n\n", "...", "---\n", "<<: ", "&a ", "*a", "!!int ", "? ", "- ", "null", "yes", "1e400", "-0x1", ".nan", "é"),
    *("\u2028", "\x85", "\ufeff", "\ud800", '"\\x00"', "[[[[", "name", "lora:", "{}", "[]", "0.5", "3", "true", "  "),
]


def outcome(text: str | bytes) -> str:
    """What a load says; empty for a config."""
    with TemporaryDirectory() as folder:
        try:
            loaded = load(written(Path(folder), text))
        except LaunchError as error:
            said, problems = str(error), error.problems
        else:
            assert load(written(Path(folder), loaded.resolved)).experiment == loaded.experiment
            return ""
    assert problems
    assert all("\n" not in problem.what and problem.where for problem in problems)
    return said


def fine(said: str) -> bool:
    return "pydantic" not in said and "Input should" not in said and "which does not fit here" not in said


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_mutations_of_a_config(seed, edits):
    chance = random.Random(seed)
    text = VALID
    for _ in range(edits):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 3, 20]))
        text = text[:start] + chance.choice([*PIECES, text[start:end] * 2, ""]) + text[end:]
    assert fine(outcome(text))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data):
    assert fine(outcome(data))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_any_value_at_any_key(seed):
    """Each line's value replaced by one of another type: every kind of error of the schema has words of its own."""
    chance = random.Random(seed)
    lines = VALID.splitlines()
    where = chance.randrange(1, len(lines))
    value = chance.choice(
        ["3", "-1", "0.5", "'x'", "[1]", "{a: 1}", "true", "null", "[[1]]", "[{}]", "''", "1e30", "[a, b, c]"]
    )
    lines[where] = f"{lines[where].split(':')[0]}: {value}"
    assert fine(outcome("\n".join(lines)))


def test_an_error_without_words_would_be_seen(monkeypatch):
    monkeypatch.delitem(KINDS, "greater_than_equal")
    assert not fine(outcome(VALID.replace("epochs: 3", "epochs: 0")))
