"""What a person may write for a parameter, and for a number in an environment variable."""

import pytest

from fastconv.ground import parameters


@pytest.mark.parametrize(
    ("text", "number"), [("4", 4), ("0", 0), (" 4 ", 4), ("4\n", 4), ("0012", 12), ("9" * 18, 10**18 - 1)]
)
def test_count_reads_plain_decimals(text, number):
    assert parameters.count(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "+4", "-4", "4.0", "4e1", "0x4", "1_000", "4 2", "4,2", "two", "²", "\uff14", "\u0664", "4\0", "\xa04",
     "\udcff", "9" * 19, "9" * 5000],
    ids=ascii,
)  # fmt: skip
def test_count_refuses_everything_else(text):
    assert parameters.count(text) is None


@pytest.mark.parametrize("text", ["9" * 5000, "\udcff" * 300, "\x1b[2J", "\n\n"])
def test_shown_texts_are_short_and_printable(text):
    shown = parameters.shown(text)
    assert shown.isprintable()
    assert len(shown) <= 103
