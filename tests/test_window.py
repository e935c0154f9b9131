from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.errors import ArgumentError, ShapeError, UnknownNameError
from minidl.window import Window


@pytest.mark.parametrize(
    ("window", "size", "expected"),
    [
        (Window.of(11, stride=4), 227, 55),
        (Window.of(11, stride=4), 224, 54),
        (Window.of(11, stride=4, rounding="ceil"), 224, 55),  # Krizhevsky's own code
        (Window.of(11, stride=4, padding=2), 224, 55),  # torchvision
        (Window.of(3, stride=2), 55, 27),
        (Window.of(3, stride=2), 27, 13),
        (Window.of(3, stride=2), 13, 6),
        (Window.of(5, padding=2), 27, 27),
        (Window.of(3, dilation=2), 7, 3),
        (Window.of(2, stride=2, rounding="ceil"), 5, 3),
        (Window.of(1, stride=3, rounding="ceil"), 5, 2),  # a third window would start at 6, past the end
        (Window.of(2, stride=2, padding=1, rounding="ceil"), 3, 2),  # a third would start on the padding
    ],
    ids=str,
)
def test_known_output_sizes(window, size, expected):
    assert window.output_size(size, size) == (expected, expected)


def test_axes_are_independent():
    window = Window.of((1, 3), stride=(2, 1), padding=((0, 1), (2, 3)), dilation=(1, 2))
    assert window.output_size(4, 5) == ((4 + 1 - 1) // 2 + 1, 5 + 2 + 3 - 5 + 1)
    assert window.span == (1, 5)


@st.composite
def windows(draw, rounding=("floor", "ceil")):
    """A window, and the height and width of an image into which it fits."""

    def pair(least, most):
        return draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    padding = pair(0, 3), pair(0, 3)
    window = Window.of(pair(1, 4), pair(1, 4), padding, pair(1, 3), draw(st.sampled_from(rounding)))
    least = (max(1, window.span[axis] - sum(padding[axis])) for axis in (0, 1))
    return window, *(n + draw(st.integers(0, 6)) for n in least)


@given(windows())
def test_positions_are_those_that_fit(case):
    window, *size = case
    for axis, (n, positions) in enumerate(zip(size, window.output_size(*size), strict=True)):
        before, after = window.padding[axis]
        step, span, total = window.stride[axis], window.span[axis], before + n + after
        starts = range(0, total, step)
        if window.rounding == "floor":
            expected = [start for start in starts if start + span <= total]
        else:  # a last one may hang over the end, if it begins before the image ends
            expected = [start for start in starts if start + span < total + step]
            expected = [start for start in expected if start + span <= total or start < before + n]
        assert positions == len(expected)


@given(windows())
def test_counts_and_full_padding(case):
    window, *size = case
    inside, padded, full = window.tap_counts(*size), window.tap_counts(*size, True), window.full_padding(*size)
    for axis, (n, positions) in enumerate(zip(size, window.output_size(*size), strict=True)):
        before, after = window.padding[axis]
        for o in range(positions):
            taps = [o * window.stride[axis] + i * window.dilation[axis] - before for i in range(window.kernel[axis])]
            assert inside[axis][o] == sum(0 <= tap < n for tap in taps)
            assert padded[axis][o] == sum(-before <= tap < n + after for tap in taps)
        # The last window lies in the fully padded image, which is no longer than it must be.
        last = (positions - 1) * window.stride[axis] + window.span[axis] - before - n
        assert full[axis] == (before, max(after, last))
        assert window.rounding == "ceil" or full[axis] == (before, after)


@given(windows())
def test_taps_read_every_position_once(case):
    window, H, W = case
    OH, OW = window.output_size(H, W)
    (top, bottom), (left, right) = window.full_padding(H, W)
    seen = []
    for i, j, rows, columns in window.taps(OH, OW):
        seen.append((i, j))
        for read, positions, tap, axis, total in (
            (rows, OH, i, 0, top + H + bottom),
            (columns, OW, j, 1, left + W + right),
        ):
            expected = [o * window.stride[axis] + tap * window.dilation[axis] for o in range(positions)]
            assert list(range(total))[read] == expected
    assert seen == [(i, j) for i in range(window.kernel[0]) for j in range(window.kernel[1])]


@pytest.mark.parametrize(
    ("given", "padding"),
    [(1, ((1, 1), (1, 1))), ((1, 2), ((1, 1), (2, 2))), (((1, 2), (3, 4)), ((1, 2), (3, 4))), ([[1, 2], 3], None)],
)
def test_forms_of_padding(given, padding):
    assert Window.of(3, padding=given).padding == (padding or ((1, 2), (3, 3)))


@given(*[st.tuples(st.integers(1, top), st.integers(1, top)) for top in (6, 4, 20)])
def test_same_padding_keeps_the_size(kernel_size, dilation, size):
    window = Window.of(kernel_size, padding="same", dilation=dilation)
    assert window.output_size(*size) == size
    for before, after in window.padding:
        assert after - before in (0, 1), "the odd one at the end"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size: expected at least 1, got 0"),
        ({"kernel_size": (3, 0)}, r"kernel_size: expected at least 1, got \(3, 0\)"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size: expected an integer or two \(height, width\), got \(3, 3, 3\)"),
        ({"kernel_size": (3, 2.0)}, r"kernel_size: expected an integer or two \(height, width\)"),
        ({"kernel_size": True}, "kernel_size: expected an integer"),
        ({"kernel_size": 2.5}, r"kernel_size: expected an integer or two \(height, width\), got 2.5"),
        ({"kernel_size": None}, r"kernel_size: expected an integer or two \(height, width\), got None"),
        ({"kernel_size": 3, "stride": 0}, "stride: expected at least 1, got 0"),
        ({"kernel_size": 3, "stride": 1.0}, r"stride: expected an integer or two \(height, width\), got 1.0"),
        ({"kernel_size": 3, "dilation": 0}, "dilation: expected at least 1, got 0"),
        ({"kernel_size": 3, "padding": -1}, "padding: expected at least 0, got"),
        ({"kernel_size": 3, "padding": (1, 2, 3)}, r"padding: expected an integer, \(height, width\) or \(\(top,"),
        (
            {"kernel_size": 3, "stride": (1, 2), "padding": "same"},
            r'padding: "same" takes stride 1, got stride=\(1, 2\)',
        ),
        ({"kernel_size": 3, "padding": "valid"}, r"padding: expected an integer, \(height, width\) or \(\(top,"),
        ({"kernel_size": 3, "padding": 1.0}, r"padding: expected an integer, \(height, width\) or \(\(top,"),
        ({"kernel_size": 3, "padding": (1.0, 1.0)}, "padding: expected an integer or two"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Window.of(**arguments)


def test_unknown_rounding():
    with pytest.raises(UnknownNameError, match="unknown rounding 'cei': did you mean 'ceil'"):
        Window.of(3, rounding="cei")


@pytest.mark.parametrize(
    ("size", "message"),
    [((4, 9), "expected a height of at least 5 for a window of 5×5, got 4"), ((9, 4), "a width of at least 5")],
)
def test_a_window_larger_than_the_image(size, message):
    with pytest.raises(ShapeError, match=message):
        Window.of(5).output_size(*size)


def test_the_least_size_is_the_least():
    window = Window.of(5, padding=((1, 0), (0, 0)), dilation=2)
    with pytest.raises(ShapeError, match="expected a height of at least 8") as caught:
        window.output_size(7, 20)
    least = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert window.output_size(least, 20)[0] == 1


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window.of(3), "3×3"),
        (Window.of((1, 2), (3, 4)), "1×2, stride=(3, 4)"),
        (Window.of(11, 4, 2, 3, "ceil"), '11×11, stride=4, padding=2, dilation=3, rounding="ceil"'),
        (Window.of(3, padding=((0, 1), (0, 1))), "3×3, padding=((0, 1), (0, 1))"),
        (Window.of(3, padding=(1, 0)), "3×3, padding=(1, 0)"),
    ],
)
def test_as_text(window, expected):
    assert str(window) == expected
