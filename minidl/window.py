"""The geometry of sliding windows, written once for convolution and pooling, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, TypeAlias

from minidl.errors import ArgumentError, ShapeError, UnknownNameError, told

Rounding: TypeAlias = Literal["floor", "ceil"]
Pair: TypeAlias = tuple[int, int]
Size: TypeAlias = int | Sequence[int]
Padding: TypeAlias = Literal["same"] | int | Sequence[int] | Sequence[Sequence[int]]


def _pair(name: str, value: Size, least: int) -> Pair:
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(isinstance(v, Integral) and not isinstance(v, bool) for v in values):
        raise ArgumentError(f"{name}: expected an integer or two (height, width), got {told(value)}")
    if min(values) < least:
        raise ArgumentError(f"{name}: expected at least {least}, got {value!r}")
    return int(values[0]), int(values[1])


def _padding(value: int | Sequence[int] | Sequence[Sequence[int]]) -> tuple[Pair, Pair]:
    if isinstance(value, Integral):
        value = int(value), int(value)
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ArgumentError(
            'padding: expected an integer, (height, width) or ((top, bottom), (left, right)), or "same", '
            f"got {told(value)}"
        )
    return _pair("padding", value[0], 0), _pair("padding", value[1], 0)


@dataclass(frozen=True)
class Window:
    """A window of KH×KW taps that slides over the height and width of an image.

    Along one axis of n elements, with kernel k, stride s, padding (before, after) and dilation d, the window
    spans d·(k−1) + 1 elements and takes

        positions = ⌊(n + before + after − span) / s⌋ + 1

    With `rounding="ceil"` the division rounds up, so that a last window may hang over the end; it is dropped if
    it would start at or past n + before, where it would see no element. Tap i of position o reads the element
    o·s + i·d − before.

    Build one with `Window.of`, which also accepts single integers:

    >>> conv1 = Window.of(kernel_size=11, stride=4)
    >>> conv1.output_size(227, 227)
    (55, 55)
    >>> Window.of(11, stride=4, rounding="ceil").output_size(224, 224)  # the paper's 224
    (55, 55)
    >>> print(Window.of((3, 4), padding="same"))
    3×4, padding=((1, 1), (1, 2))

    Source: Dumoulin and Visin 2016, arXiv 1603.07285; the ceil rule is PyTorch's.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    rounding: Rounding = "floor"

    def __post_init__(self) -> None:
        if self.rounding not in ("floor", "ceil"):
            raise UnknownNameError("rounding", self.rounding, ["floor", "ceil"])
        given = self.kernel, self.stride, self.padding, self.dilation
        sizes = (
            _pair("kernel", given[0], 1),
            _pair("stride", given[1], 1),
            _padding(given[2]),
            _pair("dilation", given[3], 1),
        )
        if given != sizes:
            raise ArgumentError(
                f"Window: expected pairs as kernel, stride, padding and dilation, got {given}; "
                "Window.of also takes single integers"
            )

    @classmethod
    def of(
        cls,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        rounding: Rounding = "floor",
    ) -> Window:
        """A window from integers or (height, width) pairs.

        padding: also ((top, bottom), (left, right)); or, with stride 1, "same" for as many positions as the image has
            elements: span − 1 in all, and where that is odd, one more at the end (PyTorch's rule).
        Raises: ArgumentError naming the argument.
        """
        window = cls(
            kernel=_pair("kernel_size", kernel_size, 1),
            stride=_pair("stride", stride, 1),
            dilation=_pair("dilation", dilation, 1),
            rounding=rounding,
        )
        return replace(
            window,
            padding=window._same_padding() if isinstance(padding, str) and padding == "same" else _padding(padding),
        )

    def _same_padding(self) -> tuple[Pair, Pair]:
        if self.stride != (1, 1):
            raise ArgumentError(
                f'padding: "same" takes stride 1, got stride={_short(self.stride)}; '
                "with a longer one give ((top, bottom), (left, right))"
            )
        rows, columns = self.span[0] - 1, self.span[1] - 1
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)

    @property
    def span(self) -> Pair:
        """Height and width that the dilated window covers."""
        return self.dilation[0] * (self.kernel[0] - 1) + 1, self.dilation[1] * (self.kernel[1] - 1) + 1

    def output_size(self, H: int, W: int) -> Pair:
        """How many positions the window takes over an H×W image.

        Raises: ShapeError where the window does not fit into the padded image.
        """
        return self._positions(0, H), self._positions(1, W)

    def _positions(self, axis: int, n: int) -> int:
        before, after = self.padding[axis]
        name = ("height", "width")[axis]
        if not isinstance(n, int | Integral) or n < 1:  # the first is found faster
            raise ShapeError(f"expected a positive integer as {name}, got {told(n)}")
        room = n + before + after - self.span[axis]
        if room < 0:
            least = max(1, self.span[axis] - before - after)
            raise ShapeError(f"expected a {name} of at least {least} for a window of {self}, got {n}")
        steps, rest = divmod(room, self.stride[axis])
        if self.rounding == "ceil" and rest and (steps + 1) * self.stride[axis] < n + before:
            steps += 1
        return steps + 1

    def full_padding(self, H: int, W: int) -> tuple[Pair, Pair]:
        """The padding, made larger at the end where the last window of `rounding="ceil"` hangs over."""
        result = []
        for axis, (n, positions) in enumerate(zip((H, W), self.output_size(H, W), strict=True)):
            before, after = self.padding[axis]
            reach = (positions - 1) * self.stride[axis] + self.span[axis]
            result.append((before, max(after, reach - n - before)))
        return result[0], result[1]

    def taps(self, OH: int, OW: int) -> Iterator[tuple[int, int, slice, slice]]:
        """For each tap (i, j): the rows and columns of the padded image that it reads, over all OH×OW positions.

        >>> for i, j, rows, columns in Window.of((1, 2), stride=2).taps(3, 3):
        ...     print(i, j, rows, columns)
        0 0 slice(0, 5, 2) slice(0, 5, 2)
        0 1 slice(0, 5, 2) slice(1, 6, 2)
        """
        (KH, KW), (SH, SW), (DH, DW) = self.kernel, self.stride, self.dilation
        for i in range(KH):
            for j in range(KW):
                rows = slice(i * DH, i * DH + SH * (OH - 1) + 1, SH)
                columns = slice(j * DW, j * DW + SW * (OW - 1) + 1, SW)
                yield i, j, rows, columns

    def tap_counts(self, H: int, W: int, include_padding: bool = False) -> tuple[list[int], list[int]]:
        """For each position along the height, and along the width: how many taps lie in the image.

        With `include_padding`, taps on the padding count too, but not those that hang over it.

        >>> Window.of(3, stride=2, padding=1).tap_counts(5, 5)
        ([2, 3, 2], [2, 3, 2])
        """
        counts = []
        for axis, (n, positions) in enumerate(zip((H, W), self.output_size(H, W), strict=True)):
            before, after = self.padding[axis]
            first, last = (0, before + n + after) if include_padding else (before, before + n)
            starts = (o * self.stride[axis] for o in range(positions))
            offsets = [i * self.dilation[axis] for i in range(self.kernel[axis])]
            counts.append([sum(first <= start + offset < last for offset in offsets) for start in starts])
        return counts[0], counts[1]

    def __str__(self) -> str:
        parts = [f"{self.kernel[0]}×{self.kernel[1]}"]
        if self.stride != (1, 1):
            parts.append(f"stride={_short(self.stride)}")
        if self.padding != ((0, 0), (0, 0)):
            (top, bottom), (left, right) = self.padding
            symmetric = top == bottom and left == right
            parts.append(f"padding={_short((top, left)) if symmetric else self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={_short(self.dilation)}")
        if self.rounding != "floor":
            parts.append(f'rounding="{self.rounding}"')
        return ", ".join(parts)


def _short(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else str(pair)
