"""What an unquoted word means, against PyYAML as the other reader."""

from datetime import date

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launcher.config import document, scalar
from launcher.config.scalar import RefusedScalarError, is_text, plain


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("3e-4", 3e-4),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("+3", 3),
        ("-0", 0),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("01:30:00", "01:30:00"),
        ("12:30:00", "12:30:00"),
        ("2026-01-31", "2026-01-31"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1-2", "1-2"),
        ("y", "y"),
        ("nan", "nan"),
        ("\u0661", "\u0661"),
    ],
)
def test_meaning(word, value):
    read = plain(word)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "word", ["yes", "No", "ON", "off", "010", "-007", "00", "0o17", "0b1", "1_000", "1_0.5", ".inf", "-.INF", ".NaN"]
)
def test_refusal(word):
    with pytest.raises(RefusedScalarError):
        plain(word)
    assert not is_text(word)


@pytest.mark.parametrize(("word", "better"), [("010", "10"), ("-007", "-7"), ("000", "0"), ("1_000", "1000")])
def test_refusal_names_what_to_write(word, better):
    with pytest.raises(RefusedScalarError) as caught:
        plain(word)
    assert f"Write {better}, or" in caught.value.hint


WORDS = st.one_of(
    st.from_regex(r"[-+]?[0-9][-+0-9_.:eExobaXfF]{0,8}", fullmatch=True),
    st.from_regex(r"[-+.~=<a-zA-Z0-9_:]{1,8}", fullmatch=True),
    st.sampled_from(
        ["yes", "No", "on", "OFF", "null", "True", ".inf", "1e-4", "0x_1", "1:2", "1:2.5", "2001-1-1 1:1:1"]
    ),
)


def means_one_thing(word, ours, other):
    """The differences that are let through: exponents, `-.5`, dates and times of day, and the tag of `=`."""
    is_signed = isinstance(ours, float) and isinstance(other, str) and word[:2] in {"-.", "+."}
    is_exponent = isinstance(ours, float) and isinstance(other, str) and "e" in word.lower()
    is_time = ours == word and (isinstance(other, date) or (":" in word and isinstance(other, int | float)))
    return is_exponent or is_signed or is_time or word == "="


def differs(word):
    """Whether PyYAML reads another value, as a pair; None where either refuses the word or both agree."""
    try:
        other = yaml.safe_load(f"k: {word}")["k"]
    except (yaml.YAMLError, ValueError, TypeError):
        return None
    ours = document.read(f"k: {word}")
    if ours.mistakes or (ours.value["k"] == other and type(ours.value["k"]) is type(other)):
        return None
    return ours.value["k"], other


@settings(max_examples=400, deadline=None)
@given(WORDS)
@example("1e-4")
@example("0b1")
@example("190:20:30.15")
@example("0._")
@example("-.5")
@example(".1_0")
def test_no_word_is_read_differently_by_pyyaml_unless_it_can_mean_one_thing_only(word):
    found = differs(word)
    assert found is None or means_one_thing(word, *found), found


@pytest.mark.parametrize("word", ["yes", "off", "010", "1_000", "0b1"])
def test_without_the_refusals_the_readers_would_differ(word, monkeypatch):
    monkeypatch.setattr(scalar, "_refuse_unclear_number", lambda _: None)
    monkeypatch.setattr(scalar, "OLD_TRUE", frozenset())
    monkeypatch.setattr(scalar, "OLD_FALSE", frozenset())
    assert not means_one_thing(word, *differs(word))
