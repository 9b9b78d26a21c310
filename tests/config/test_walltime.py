"""Lengths of time."""

import pytest

from launcher import walltime


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("01:30:00", 90),
        ("1:30:01", 91),
        ("00:00:01", 1),
        ("100:00:00", 6000),
        ("1-12", 2160),
        ("1-12:00:00", 2160),
        ("2-00:00:00", 2880),
    ],
)
def test_minutes(text, minutes):
    assert walltime.minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a length"),
        ("0", "no limit"),
        ("00:00:00", "no limit"),
        ("10:00", "not a length"),
        ("1:60:00", "not a length"),
        ("1-24:00:00", "not a length"),
        ("-5", "not a length"),
        ("UNLIMITED", "not a length"),
        ("1h", "not a length"),
        ("٣", "not a length"),
        ("5\n", "not a length"),
        ("367-00:00:00", "longer than a year"),
    ],
)
def test_refused(text, said):
    with pytest.raises(ValueError, match=said):
        walltime.minutes(text)


@pytest.mark.parametrize("text", ["90", "1-12"])
def test_files_hold_the_long_forms_only(text):
    with pytest.raises(ValueError, match="not a length"):
        walltime.clock(text)
