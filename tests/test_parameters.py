"""What a person may write for a parameter, and for a number in an environment variable."""

from collections.abc import Sequence

import numpy as np
import pytest

import fastconv as fc
from fastconv import functional, grad, nn
from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends, gradients
from fastconv.problem import parameters

X, W, B = np.ones((2, 6, 10, 11)), np.ones((4, 6, 3, 2)), np.ones(4)
Y = fc.conv2d(X, W)
X1, W1, Y1 = X[:, :, 0].copy(), W[:, :, 0].copy(), Y[:, :, 0].copy()


class Items(Sequence):
    """A sequence of another library, as the attributes of an ONNX node are."""

    def __init__(self, items):
        self._items = list(items)

    def __len__(self):
        return len(self._items)

    def __getitem__(self, i):
        return self._items[i]


def nested(outer, number):
    """A function that writes a parameter with sequences and numbers of these types."""

    def write(value):
        if isinstance(value, tuple):
            return outer([write(item) for item in value])
        return np.str_(value) if isinstance(value, str) else number(value)

    return write


FORMS = {
    "lists": nested(list, int),
    "NumPy integers": nested(tuple, np.int64),
    "lists of NumPy integers": nested(list, np.uint8),
    "arrays": nested(np.array, int),
    "arrays without axes": nested(tuple, np.array),
    "other sequences": nested(Items, int),
}
#: Calls with their parameters as `f` writes them. Of those in KEPT a tile engine keeps everything.
KEPT = {
    "stride": lambda f: fc.conv2d(X, W, None, f((2, 1)), f(1), f((1, 2)), f(1)),
    "pairs": lambda f: fc.conv2d(X, W, padding=f(((1, 0), (2, 1)))),
    "name": lambda f: fc.conv2d(X, W, padding=f("same")),
    "transposed": lambda f: fc.conv_transpose2d(Y, W, None, f((2, 2)), f(1), f((1, 0)), f(1), f((1, 1))),
    "output_size": lambda f: fc.conv_transpose2d(Y, W, None, f(2), output_size=f((17, 20))),
    "1-D": lambda f: fc.conv1d(X1, W1, None, f((2,)), f(((1, 1),)), f(1), f(1)),
    "1-D transposed": lambda f: fc.conv_transpose1d(Y1, W1, None, f(2), output_size=f((21,))),
    "input_size": lambda f: grad.conv2d_input(f(X.shape), W, Y, f((1, 1)), f((0, 0))),
    "weight_size": lambda f: grad.conv2d_weight(X, f(W.shape), Y, f(1), f(0), f((1, 1))),
    "1-D input_size": lambda f: grad.conv1d_input(f(X1.shape), W1, Y1, f((1,))),
    "transposed input_size": lambda f: grad.conv_transpose2d_input(f(Y.shape), W, X, f((1, 1))),
    "transposed weight_size": lambda f: grad.conv_transpose1d_weight(Y1, f(W1.shape), X1, f((1,))),
}
CALLS = KEPT | {
    "bias": lambda f: fc.conv2d(X, W, B, f((2, 1)), f((1, 1))),
    "reflected": lambda f: fc.conv2d(X, W, None, f((2, 1)), f((1, 1)), padding_mode=f("reflect")),
    "backward": lambda f: grad.conv2d_backward(Y, X, W, f((1, 1)), f((0, 0)), f((1, 1)), f(1))[1],
    "layer": lambda f: nn.Conv2d(6, 4, f((3, 2)), f((1, 1)), f(((1, 1), (0, 2))), rng=0)(X),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_what_tuples_gave_is_found_by_other_forms(engine, monkeypatch, name, form):
    """Configuration files give lists, arrays' shapes NumPy integers; a call with them is no slower."""
    call = CALLS[name]
    expected = call(lambda value: value)
    if name != "layer":  # whose constructor checks its arguments each time

        def refuse(*arguments, **named):
            raise AssertionError("worked out anew")

        monkeypatch.setattr(parameters, "per_axis", refuse)
        if name in KEPT and is_tiled(backends.loaded(engine[0])):
            monkeypatch.setattr(functional, "contract", refuse)
            monkeypatch.setattr(gradients, "contract", refuse)
    result = call(FORMS[form])
    np.testing.assert_array_equal(result, expected, strict=True)


@pytest.mark.parametrize(
    "value",
    [True, 1.0, np.True_, np.float64(1), "1", 1 + 0j, [1.0, 1], [True, 1], (True, 1), (1.0, 1), [[1, 1]], [1, 1, 1],
     [1, "1"], np.array([1.0, 1]), np.array([True, True]), b"11", [b"1", 1], {1: 1}, Items([1.0, 1]), range(10**12),
     range(10**30), np.ones(10**6, int),
     [[[1]]]],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_what_only_equals_an_integer_is_refused(name, value):
    for good in (1, (1, 1), [1, 1]):
        fc.conv2d(X, W, **{name: good})
    with pytest.raises(fc.ArgumentError, match=name):
        fc.conv2d(X, W, **{name: value})


@pytest.mark.parametrize("value", [[1, 1, 1], (1, 1, 1), [1.0, 1], [1, 1.5], [np.int64(1)] * 3, [-1, 0]], ids=str)
def test_an_error_shows_what_was_written(value):
    with pytest.raises(fc.ArgumentError, match="dilation") as caught:
        fc.conv2d(X, W, dilation=value)
    assert repr(value) in str(caught.value) or "not -1" in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("value", [[1], (1,), np.array([1]), True, 1.0])
def test_groups_are_one_integer(value):
    fc.conv2d(X, W, groups=1)
    for _ in range(2):
        with pytest.raises(fc.ArgumentError, match="groups"):
            fc.conv2d(X, W, groups=value)


@pytest.mark.parametrize(
    ("text", "number"), [("4", 4), ("0", 0), (" 4 ", 4), ("4\n", 4), ("0012", 12), ("9" * 18, 10**18 - 1)]
)
def test_count_reads_plain_decimals(text, number):
    assert parameters.count(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "+4", "-4", "4.0", "4e1", "0x4", "1_000", "4 2", "4,2", "two", "²", "\uff14", "\u0664", "4\0", "\xa04",
     "\udcff", "9" * 19, "9" * 5000],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_count_refuses_everything_else(text):
    assert parameters.count(text) is None


@pytest.mark.parametrize("text", ["9" * 5000, "\udcff" * 300, "\x1b[2J", "\n\n"])
def test_shown_texts_are_short_and_printable(text):
    shown = parameters.shown(text)
    assert shown.isprintable()
    assert len(shown) <= 103
