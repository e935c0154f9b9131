"""Draws the figures of the documentation. Every number in them is computed by minidl, none is typed in.

python docs/figures/make_figures.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection
from html import escape
from itertools import product
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that it runs in a checkout that is not installed

from minidl import Key, settings  # noqa: E402
from minidl.losses import SoftmaxCrossEntropy  # noqa: E402
from minidl.ops.conv2d import col2im, conv2d, conv2d_input_gradient, conv2d_weight_gradient, im2col  # noqa: E402
from minidl.ops.dropout import dropout, dropout_mask  # noqa: E402
from minidl.ops.local_response_norm import local_response_norm_gradient  # noqa: E402
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_gradient  # noqa: E402
from minidl.random import philox  # noqa: E402
from minidl.window import Window  # noqa: E402

PAPER, EDGE, INK, MUTED = "#fcfbf8", "#d8d4ca", "#1f2328", "#6a6d73"
BLUE, PALE_BLUE, RED, ORANGE, GREY = "#2563eb", "#dbe7fd", "#b93a0a", "#ffd9bd", "#efece5"
CELL = 34

Cell = tuple[int, int]


class Drawing:
    """SVG elements on a light card, which is legible on a dark page too."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" font-family="DejaVu Sans, Verdana, sans-serif" font-size="14">\n'
            f"<title>{escape(title)}</title>\n"
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="{PAPER}" '
            f'stroke="{EDGE}"/>\n'
        )
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 14,
        colour: str = INK,
        anchor: str = "middle",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        """Words whose baseline begins, ends or is centred at x, y."""
        style = ' font-weight="bold"' if bold else ""
        style += ' font-family="DejaVu Sans Mono, Menlo, Consolas, monospace"' if mono else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{style} '
            f'xml:space="preserve">{escape(words)}</text>\n'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        edge: str = EDGE,
        line: float = 1,
        dashed: bool = False,
    ) -> None:
        """A rectangle."""
        dash = ' stroke-dasharray="3 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{edge}" '
            f'stroke-width="{line:g}"{dash}/>\n'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, label: str = "") -> None:
        """An arrow, with a label over its middle."""
        length = float(np.hypot(x2 - x1, y2 - y1))
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        left = f"{x2 - 8 * ux - 4 * uy:g},{y2 - 8 * uy + 4 * ux:g}"
        right = f"{x2 - 8 * ux + 4 * uy:g},{y2 - 8 * uy - 4 * ux:g}"
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2 - 6 * ux:g}" y2="{y2 - 6 * uy:g}" stroke="{MUTED}" '
            f'stroke-width="1.5"/>\n<polygon points="{x2:g},{y2:g} {left} {right}" fill="{MUTED}"/>\n'
        )
        if label:
            self.text((x1 + x2) / 2, min(y1, y2) - 8, label, size=12, colour=MUTED)

    def grid(
        self,
        x: float,
        y: float,
        values: np.ndarray,
        name: str = "",
        *,
        cell: float = CELL,
        blue: Collection[Cell] = (),
        orange: Collection[Cell] = (),
        grey: Collection[Cell] = (),
        show: Callable[[float], str] = lambda value: f"{value:g}".replace("-", "−"),
        size: int = 14,
    ) -> None:
        """A matrix: one cell a number, with its name above."""
        rows, columns = values.shape
        for r, c in np.ndindex(rows, columns):
            fill = ORANGE if (r, c) in orange else PALE_BLUE if (r, c) in blue else GREY if (r, c) in grey else "white"
            left, top = x + c * cell, y + r * cell
            self.box(left, top, cell, cell, fill=fill)
            colour, bold = (RED, True) if (r, c) in orange else (INK, False)
            self.text(
                left + cell / 2, top + cell / 2 + size * 0.36, show(values[r, c]), size=size, colour=colour, bold=bold
            )
        self.box(x, y, columns * cell, rows * cell, edge=MUTED, line=1.2)
        if name:
            self.text(x + columns * cell / 2, y - 9, name, size=13, bold=True)

    def svg(self) -> str:
        """The whole file."""
        return self.head + "".join(self.parts) + "</svg>\n"


def block(top: int, left: int, rows: int, columns: int) -> set[Cell]:
    """The cells of a rectangle."""
    return set(product(range(top, top + rows), range(left, left + columns)))


def signed_sum(terms: list[str]) -> str:
    """The terms with + and − between them."""
    return re.sub(r"\+ −", "− ", " + ".join(terms))


def number(value: float) -> str:
    """A number with a real minus sign."""
    return f"{value:g}".replace("-", "−")


# --- convolution ------------------------------------------------------------------------------------------------

X = np.array([[1, 0, 2, 1], [3, 1, 7, 0], [2, 4, 1, 5], [0, 2, 3, 1]], float)
WEIGHT = np.array([[1, 2, -1], [3, 1, 2], [-2, 1, 1]], float)
DY = np.array([[1, -1], [2, 3]], float)
WINDOW = Window.of(3)
FOLLOWED = (1, 2)  # the 7
TAPS = [f"{i},{j}" for i in range(3) for j in range(3)]
PIXELS = [f"{oh},{ow}" for oh in range(2) for ow in range(2)]


def _image(matrix: np.ndarray) -> np.ndarray:
    return matrix[None, :, :, None]


def _copies() -> set[Cell]:
    """Where in the 4×9 columns the followed element stands."""
    mark = np.zeros_like(X)
    mark[FOLLOWED] = 1
    return {(int(r), int(c)) for r, c in np.argwhere(im2col(_image(mark), WINDOW).reshape(4, 9))}


def _label_columns(d: Drawing, x: float, y: float) -> None:
    for c, tap in enumerate(TAPS):
        d.text(x + (c + 0.5) * CELL, y, tap, size=11, colour=MUTED)


def _label_rows(d: Drawing, x: float, y: float) -> None:
    for r, pixel in enumerate(PIXELS):
        d.text(x, y + (r + 0.5) * CELL + 4, pixel, size=11, colour=MUTED, anchor="end")


def conv2d_forward() -> str:
    """Input, columns, weight, output."""
    cols = im2col(_image(X), WINDOW).reshape(4, 9)
    y = conv2d(_image(X), WEIGHT[:, :, None, None], None, WINDOW)[0, :, :, 0]
    row = 1  # output pixel (0, 1)
    window = block(0, 1, 3, 3)
    d = Drawing(900, 424, "Convolution as a matrix product: input, columns, weight, output")
    d.grid(30, 80, X, "x  4×4", blue=window, orange=[FOLLOWED])
    d.box(30 + CELL, 80, 3 * CELL, 3 * CELL, edge=BLUE, line=2.5)
    d.arrow(180, 148, 250, 148, "im2col")
    d.text(285, 62, "oh,ow", size=11, colour=MUTED, anchor="end")
    d.text(446, 30, "cols  4×9", size=13, bold=True)
    d.text(446, 47, "columns: tap i,j of the window", size=11, colour=MUTED)
    _label_columns(d, 293, 72)
    _label_rows(d, 285, 80)
    d.grid(293, 80, cols, blue=block(row, 0, 1, 9), orange=_copies())
    d.text(621, 156, "·", size=24)
    d.grid(645, 80, WEIGHT.reshape(9, 1), "weight")
    d.text(705, 154, "=", size=20)
    d.grid(730, 80, y.reshape(4, 1), "y  4×1", blue=[(row, 0)])
    d.arrow(768, 148, 797, 148)
    d.grid(802, 114, y, "y  2×2", blue=[(0, 1)])
    d.grid(47, 290, WEIGHT, "weight  3×3")
    terms = [
        f"{number(a)}·{number(b) if b > 0 else f'({number(b)})'}"
        for a, b in zip(cols[row], WEIGHT.ravel(), strict=True)
    ]
    d.text(293, 290, "The blue window becomes the blue row. Its output:", anchor="start", size=13)
    d.text(293, 314, " + ".join(terms[:5]), anchor="start", size=13)
    d.text(293, 336, f"+ {' + '.join(terms[5:])}  =  {number(y[0, 1])}", anchor="start", size=13)
    seen = len(_copies())
    d.text(
        293,
        374,
        f"All {seen} windows see the {number(X[FOLLOWED])}, each through another tap,",
        anchor="start",
        size=13,
        colour=RED,
    )
    d.text(293, 394, f"so cols holds it {seen} times, once in each row.", anchor="start", size=13, colour=RED)
    return d.svg()


def conv2d_backward() -> str:
    """Both gradients, on the arrays of `conv2d_forward`."""
    cols = im2col(_image(X), WINDOW).reshape(4, 9)
    dcols = DY.reshape(4, 1) @ WEIGHT.reshape(1, 9)
    dx = conv2d_input_gradient(_image(DY), WEIGHT[:, :, None, None], (1, 4, 4, 1), WINDOW)[0, :, :, 0]
    dweight = conv2d_weight_gradient(_image(X), _image(DY), WINDOW)[:, :, 0, 0]
    seen = col2im(im2col(_image(np.ones_like(X)), WINDOW), (1, 4, 4, 1), WINDOW)[0, :, :, 0]
    copies = sorted(_copies())
    assert np.array_equal(dx, col2im(dcols.reshape(1, 2, 2, 3, 3, 1), (1, 4, 4, 1), WINDOW)[0, :, :, 0])
    column = 1  # tap (0, 1)

    d = Drawing(900, 690, "Convolution backward: the input gradient and the weight gradient")
    d.text(24, 32, "Input gradient:  dcols = dy · weightᵀ,  dx = col2im(dcols)", anchor="start", size=15, bold=True)
    d.grid(30, 165, DY, "dy  2×2")
    d.arrow(106, 199, 168, 199)
    d.grid(190, 131, DY.reshape(4, 1), "dy  4×1")
    d.grid(260, 78, WEIGHT.reshape(1, 9), "weightᵀ  1×9")
    d.grid(260, 131, dcols, orange=copies)
    d.text(413, 286, "dcols  4×9", size=13, bold=True)
    d.arrow(575, 199, 660, 199, "col2im")
    d.grid(690, 131, dx, "dx  4×4", orange=[FOLLOWED])
    terms = [number(dcols[cell]) for cell in copies]
    d.text(
        260,
        314,
        f"The copies of one element of x are added:  {signed_sum(terms)} = {number(dx[FOLLOWED])}",
        anchor="start",
        size=13,
        colour=RED,
    )

    d.text(24, 372, "Weight gradient:  dweight = colsᵀ · dy", anchor="start", size=15, bold=True)
    d.grid(190, 425, DY.reshape(4, 1), "dy  4×1", blue=block(0, 0, 4, 1))
    _label_columns(d, 260, 417)
    d.text(413, 398, "cols  4×9", size=13, bold=True)
    d.grid(260, 425, cols, blue=block(0, column, 4, 1))
    d.arrow(413, 566, 413, 590)
    d.grid(260, 594, dweight.reshape(1, 9), blue=[(0, column)])
    d.text(245, 616, "dweight", size=13, bold=True, anchor="end")
    d.arrow(575, 611, 640, 611)
    d.grid(645, 560, dweight, "dweight  3×3", blue=[(0, column)])
    parts = [
        f"{number(a)}·{number(b) if b > 0 else f'({number(b)})'}"
        for a, b in zip(cols[:, column], DY.ravel(), strict=True)
    ]
    d.text(260, 656, f"Tap 0,1:  {' + '.join(parts)} = {number(dweight[0, 1])}", anchor="start", size=13, colour=BLUE)
    d.grid(725, 395, seen, "col2im(im2col(1))", cell=26, size=12, orange=[FOLLOWED])
    d.text(777, 518, "how many windows see it", size=12, colour=MUTED)
    return d.svg()


def window() -> str:
    """Stride, padding, dilation and rounding along one axis."""
    cases = [
        ("k=3, s=2", 6, Window.of(3, stride=2)),
        ('k=3, s=2, rounding="ceil"', 6, Window.of(3, stride=2, rounding="ceil")),
        ("k=3, s=2, padding=1", 6, Window.of(3, stride=2, padding=1)),
        ('k=2, s=2, padding=1, rounding="ceil"', 5, Window.of(2, stride=2, padding=1, rounding="ceil")),
        ("k=3, s=1, dilation=2", 7, Window.of(3, dilation=2)),
    ]
    cell, top = 30, 62
    d = Drawing(900, 520, "Window geometry along one axis: stride, padding, rounding and dilation")
    d.text(24, 32, "Where a window stops along one axis", anchor="start", size=15, bold=True)
    d.text(440, 32, "dashed: padding or beyond;  ●  a tap", anchor="start", size=12, colour=MUTED)
    for name, n, w in cases:
        positions = w.output_size(n, n)[0]
        (before, after), _ = w.padding
        reach = max(w.full_padding(n, n)[0][1], after)
        d.text(24, top + 20, name, anchor="start", size=13)
        x0 = 380
        for k in range(-before, n + reach):
            inside = 0 <= k < n
            d.box(
                x0 + k * cell,
                top,
                cell,
                cell,
                fill="white" if inside else GREY,
                edge=MUTED if inside else EDGE,
                dashed=not inside,
            )
            if inside:
                d.text(x0 + (k + 0.5) * cell, top + 20, str(k), size=12)
        for o in range(positions):
            start = o * w.stride[0] - before
            y = top + cell + 12 + 13 * (o % 4)
            colour = BLUE if o % 2 == 0 else RED
            xs = [x0 + (start + i * w.dilation[0] + 0.5) * cell for i in range(w.kernel[0])]
            d.parts.append(
                f'<line x1="{xs[0]:g}" y1="{y:g}" x2="{xs[-1]:g}" y2="{y:g}" stroke="{colour}" stroke-width="1.5"/>\n'
            )
            for x in xs:
                d.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{colour}"/>\n')
        room = n + before + after - w.span[0]
        rounded = ("⌈", "⌉") if w.rounding == "ceil" else ("⌊", "⌋")
        formula = f"{rounded[0]}({n}+{before}+{after}−{w.span[0]})/{w.stride[0]}{rounded[1]} + 1"
        d.text(652, top + 20, f"{formula} = {positions}", anchor="start", size=13)
        by_formula = (-(-room // w.stride[0]) if w.rounding == "ceil" else room // w.stride[0]) + 1
        if by_formula != positions:
            d.parts.pop()
            d.text(652, top + 20, f"{formula} = {by_formula}", anchor="start", size=13)
            d.text(
                652,
                top + 40,
                f"the last would start at {by_formula * w.stride[0] - w.stride[0] - before} ≥ {n}:",
                anchor="start",
                size=12,
                colour=RED,
            )
            d.text(652, top + 57, f"dropped, {positions} remain", anchor="start", size=12, colour=RED)
        top += 90
    return d.svg()


# --- max pooling ------------------------------------------------------------------------------------------------

POOL_X = np.array([[1, 3, 2, 0, 4], [5, 0, 9, 2, 1], [4, 2, 1, 3, 0], [6, 1, 3, 2, 5], [0, 6, 2, 7, 1]], float)
POOL_DY = np.array([[1, 2], [3, 4]], float)
POOL_WINDOW = Window.of(3, stride=2)


def pooling() -> str:
    """Overlapping windows with a double winner and a tie."""
    y, winners = max_pool2d(_image(POOL_X), POOL_WINDOW)
    dx = max_pool2d_gradient(_image(POOL_DY), winners, (1, 5, 5, 1), POOL_WINDOW)[0, :, :, 0]
    y, winners = y[0, :, :, 0], winners[0, :, :, 0]
    twice = (1, 2)
    assert winners[0, 0] == 5
    assert winners[0, 1] == 3

    d = Drawing(900, 310, "Overlapping max pooling: one element wins two windows")
    d.grid(30, 50, POOL_X, "x  5×5", orange=[twice], blue=[(3, 0), (4, 3)], grey=[(4, 1)])
    for (oh, ow), colour, inset in ((0, 0), BLUE, 2), ((0, 1), RED, 5):
        side = 3 * CELL - 2 * inset
        d.box(30 + 2 * ow * CELL + inset, 50 + 2 * oh * CELL + inset, side, side, edge=colour, line=2.5)
    d.arrow(212, 135, 302, 135, "3×3, stride 2")
    d.grid(325, 101, y, "y", orange=[(0, 0), (0, 1)], blue=[(1, 0), (1, 1)])
    d.grid(430, 101, winners.astype(float), "winners", orange=[(0, 0), (0, 1)], blue=[(1, 0), (1, 1)])
    d.text(464, 188, "i·3 + j", size=11, colour=MUTED)
    d.grid(535, 101, POOL_DY, "dy", orange=[(0, 0), (0, 1)], blue=[(1, 0), (1, 1)])
    d.arrow(615, 135, 690, 135, "gradient")
    d.grid(700, 50, dx, "dx  5×5", orange=[twice], blue=[(3, 0), (4, 3)])
    total = f"{number(POOL_DY[0, 0])} + {number(POOL_DY[0, 1])} = {number(dx[twice])}"
    taps = f"as tap {winners[0, 0]} of one and tap {winners[0, 1]} of the other"
    upper = f"The {number(POOL_X[twice])} wins both upper windows, {taps}: dx there is {total}."
    lower = (
        f"In the lower left window two elements are {number(y[1, 0])}: "
        f"the first in row-major order, tap {winners[1, 0]}, takes all of dy."
    )
    d.text(30, 255, upper, anchor="start", size=13, colour=RED)
    d.text(30, 280, lower, anchor="start", size=13, colour=BLUE)
    return d.svg()


# --- local response normalisation -------------------------------------------------------------------------------


def _short(value: float) -> str:
    if value == 0:
        return ""
    return (f"{value:.3f}" if abs(value) >= 5e-4 else f"{value * 1e6:.0f}µ").replace("-", "−")


def lrn_jacobian() -> str:
    """The Jacobian for an even window, at a telling and at the paper's setting."""
    x = np.array([1.0, -0.5, 1.5, 0.8, -1.2, 0.6])
    C, size = len(x), 4
    d = Drawing(900, 520, "The Jacobian of local response normalisation for an even window, at two settings")
    row, column = 2, 3
    for left, alpha, k in (40, 0.5, 0.7), (480, 1e-4, 2.0):
        # dy = e_j gives ∂y_j/∂x: the rows of the Jacobian
        jacobian = local_response_norm_gradient(np.eye(C), np.tile(x, (C, 1)), size, alpha, 0.75, k)
        window = {(j, i) for j in range(C) for i in range(j - 1, j + 3) if 0 <= i < C}
        assert all((jacobian[cell] != 0) == (cell in window) for cell in np.ndindex(C, C))
        x0, y0, cell = left + 32, 100, 58
        d.text(x0 + 3 * cell, 36, f"∂y_j/∂x_i   size = 4, β = 0.75, α = {alpha:g}, k = {k:g}", size=14, bold=True)
        d.text(x0 + 3 * cell, 62, f"x = {', '.join(number(v) for v in x)}", size=12, colour=MUTED)
        d.grid(x0, y0, jacobian, cell=cell, grey=set(np.ndindex(C, C)) - window, size=13, show=_short)
        for n in range(C):
            d.text(x0 + (n + 0.5) * cell, y0 - 8, f"i={n}", size=11, colour=MUTED)
            d.text(x0 - 7, y0 + (n + 0.5) * cell + 4, f"j={n}", size=11, colour=MUTED, anchor="end")
        d.box(x0 + (row - 1) * cell, y0 + row * cell, 4 * cell, cell, edge=BLUE, line=3)
        d.box(x0 + column * cell, y0 + (column - 2) * cell, cell, 4 * cell, edge=RED, line=3)
    blue = "blue: forward sums over the window of channel j = 2, which is j−1 … j+2"
    red = "red: backward sums over all j whose window holds channel i = 3, which are i−2 … i+1"
    d.text(72, 480, blue, anchor="start", size=13, colour=BLUE)
    d.text(72, 502, red, anchor="start", size=13, colour=RED)
    d.text(860, 480, "µ = 10⁻⁶", anchor="end", size=13, colour=MUTED)
    return d.svg()


# --- softmax and cross-entropy ----------------------------------------------------------------------------------


def softmax_gradient() -> str:
    """Bars of p, q and p − q."""
    logits, label = np.array([[2.0, 1.0, -1.0, 0.5]]), 1
    loss = SoftmaxCrossEntropy()
    value, cache = loss.forward(logits, np.array([label]))
    gradient = loss.backward(cache)[0]
    p, q = np.exp(cache[0][0]), np.eye(4)[label]
    d = Drawing(900, 300, "The gradient of softmax with cross-entropy is p minus q")
    numbers = ", ".join(number(v) for v in logits[0])
    title = f"logits {numbers};  label {label};  loss = −log p₁ = {float(value):.4f}"
    d.text(24, 32, title, anchor="start", size=15, bold=True)
    for left, name, values, colour in (
        (50, "p = softmax(logits)", p, BLUE),
        (340, "q = onehot(label)", q, MUTED),
        (630, "dlogits = p − q", gradient, RED),
    ):
        zero, unit = 186, 80
        d.text(left + 100, 70, name, size=13, bold=True)
        d.parts.append(f'<line x1="{left}" y1="{zero}" x2="{left + 220}" y2="{zero}" stroke="{MUTED}"/>\n')
        for c, v in enumerate(values):
            height = abs(v) * unit
            d.box(left + 10 + 54 * c, zero - height if v > 0 else zero, 38, height, fill=colour, edge=colour)
            d.text(
                left + 29 + 54 * c,
                zero - height - 6 if v >= 0 else zero + height + 16,
                f"{v:.3f}".replace("-", "−"),
                size=12,
            )
            d.text(left + 29 + 54 * c, 285, f"c={c}", size=11, colour=MUTED)
    return d.svg()


# --- dropout ----------------------------------------------------------------------------------------------------


def dropout_mask_drawn() -> str:
    """From a seed over step and layer to bits, mask and output."""
    p, x = 0.5, np.arange(1.0, 9.0)[None]
    keys = [Key(0), Key(0).at(7), Key(0).at(7).at("drop6")]
    mask, y = dropout_mask(x, p, keys[-1])[0], dropout(x, p, keys[-1])[0]
    d = Drawing(900, 392, "From a seed to a dropout mask")
    for n, (name, key) in enumerate(zip(("Key(0)", ".at(7)", '.at("drop6")'), keys, strict=True)):
        left = 30 + 300 * n
        d.box(left, 30, 240, 56, fill="white", edge=MUTED)
        d.text(left + 120, 53, f"{name}: {('the seed', 'the step', 'the layer')[n]}", size=13, bold=True)
        d.text(left + 120, 74, f"0x{key.seed:016x}", size=13, mono=True, colour=MUTED)
        if n:
            d.arrow(left - 58, 58, left - 4, 58)
    threshold = int(p * 2**32)
    labels = ("block", "word", "philox", f"≥ 0x{threshold:08x}", "x", "y")
    for label, y0 in zip(labels, (140, 166, 205, 245, 283, 329), strict=True):
        d.text(128, y0, label, size=13, bold=True, anchor="end")
    d.arrow(750, 90, 750, 112)
    wide = 92
    for e in range(8):
        left = 140 + wide * e
        word = philox((e // 4, 0, 0, 0), keys[-1].words)[e % 4]
        kept = bool(mask[e])
        assert kept == (word >= threshold)
        if e % 4 == 0:
            d.box(left + 2, 120, 4 * wide - 4, 28, fill=PALE_BLUE, edge=EDGE)
            d.text(left + 2 * wide, 139, f"counter ({e // 4}, 0, 0, 0)", size=12)
        d.text(left + wide / 2, 166, str(e % 4), size=12, colour=MUTED)
        d.text(left + wide / 2, 205, f"{word:08x}", size=13, mono=True, colour=INK if kept else RED)
        d.text(left + wide / 2, 245, "kept" if kept else "dropped", size=12, colour=INK if kept else RED)
        d.grid(left + (wide - CELL) / 2, 262, x[:, e : e + 1], grey=() if kept else [(0, 0)])
        d.grid(
            left + (wide - CELL) / 2,
            308,
            y[None, e : e + 1],
            orange=[(0, 0)] if kept else (),
            grey=() if kept else [(0, 0)],
        )
    d.text(
        140,
        372,
        "Kept elements are divided by 1 − p = 0.5. Backward draws the same words from the same key.",
        anchor="start",
        size=13,
    )
    return d.svg()


def figures() -> dict[str, str]:
    """All figures by file name."""
    with settings(kernels="reference"):
        return {
            "conv2d_forward.svg": conv2d_forward(),
            "conv2d_backward.svg": conv2d_backward(),
            "window.svg": window(),
            "max_pool2d.svg": pooling(),
            "lrn_jacobian.svg": lrn_jacobian(),
            "softmax_gradient.svg": softmax_gradient(),
            "dropout.svg": dropout_mask_drawn(),
        }


if __name__ == "__main__":
    for name, svg in figures().items():
        (HERE / name).write_text(svg, encoding="utf-8")
