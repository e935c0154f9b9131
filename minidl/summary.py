"""A net layer by layer, without computing anything: shapes, costs, memory, and how far each layer sees.

from minidl.summary import summarize
print(summarize(net, (227, 227, 3)))
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from minidl.combine import Branches, Sequential
from minidl.errors import ArgumentError, ShapeError, expect_a, expect_integer, told
from minidl.layer import Layer, Parameter, Shape, expect_shape
from minidl.window import Pair, Window

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table

FLOAT32 = 4  # bytes
_LAYER_WIDTH = 36  # characters; longer descriptions are folded


@dataclass(frozen=True)
class View:
    """What one pixel of a feature map sees of the image, in pixels of the image, as (height, width).

    field: the size of the rectangle that it depends on.
    stride: how far the rectangle moves from one pixel to the next.

    >>> conv1 = View().through(Window.of(11, stride=4))
    >>> conv1.through(Window.of(3, stride=2))  # pool1
    View(field=(19, 19), stride=(8, 8))
    """

    field: Pair = (1, 1)
    stride: Pair = (1, 1)

    def through(self, window: Window) -> View:
        """The view of a pixel that sees a window of pixels with this view.

        Each further element of the window adds one stride to the field; the strides multiply.
        """
        (height, width), (SH, SW), (rows, columns) = self.field, self.stride, window.span
        field = (height + (rows - 1) * SH, width + (columns - 1) * SW)
        return View(field, (SH * window.stride[0], SW * window.stride[1]))

    def __str__(self) -> str:
        return f"{_short(self.field)}/{_short(self.stride)}"


@dataclass(frozen=True)
class Row:
    """One layer of a summary, for one sample; bytes are those of float32.

    name: dotted path. depth: how many containers it is in.
    container: "sequence" or "branches" where rows for the layers in it follow, else None.
    layer, kind: the layer as it prints itself, and its class.
    parameters: those that no row above has counted yet; a container's are those of its layers.
    macs: multiply-accumulates of the forward pass.
    view: None where there is no map.
    activation_bytes: of the output. column_bytes: of what im2col lays out.
    """

    name: str
    depth: int
    container: str | None
    layer: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int
    view: View | None
    activation_bytes: int
    column_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can hold it."""
        plain = asdict(self)
        del plain["view"]
        field, stride = (list(self.view.field), list(self.view.stride)) if self.view else (None, None)
        return {**plain, "output_shape": list(self.output_shape), "receptive_field": field, "stride": stride}


@dataclass(frozen=True)
class Summary:
    """What `summarize` found. It prints as a table and a drawing, and `to_dict` makes it JSON.

    parameters, macs: of the whole net, for one sample.
    activation_bytes: of all outputs together, as a forward pass for training keeps most of them.
    column_bytes: the most that any one layer lays out.
    """

    input_shape: Shape
    output_shape: Shape
    rows: tuple[Row, ...]
    parameters: int
    macs: int
    activation_bytes: int
    column_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON can hold it."""
        shapes = {"input_shape": list(self.input_shape), "output_shape": list(self.output_shape)}
        return {**asdict(self), **shapes, "rows": [row.to_dict() for row in self.rows]}

    def largest_batch(self, memory: int, slots: int = 1, itemsize: int = FLOAT32) -> int:
        """The largest batch that a training step should have room for in so many bytes; a rough estimate, rather low.

        The parameters count with their gradients, the running arrays of the optimiser (slots of them) and one copy;
        an image with its activations, and twice with what the largest layers take on the way back: its columns, and
        an activation's gradient.
        """
        fixed = self.parameters * (3 + slots)
        widest = max(math.prod(row.output_shape) for row in self.rows)
        each = math.prod(self.input_shape) + (self.activation_bytes + 2 * self.column_bytes) // FLOAT32 + 2 * widest
        return max(0, (memory // itemsize - fixed) // each)

    def render(self, width: int | None = None) -> Group:
        """A table and a drawing for `rich`, for a width in characters; that of the terminal unless given."""
        from rich.console import Group
        from rich.text import Text

        width = shutil.get_terminal_size((100, 24)).columns if width is None else width
        totals = f"{self.parameters:,} parameters; per sample {_count(self.macs)} MACs, "
        totals += f"{_bytes(self.activation_bytes)} activations"
        totals += f", im2col up to {_bytes(self.column_bytes)}" if self.column_bytes else ""
        drawing = draw(self, width)
        after = [Text(), Text(drawing, no_wrap=True)] if drawing else []
        return Group(self._table(width), Text(totals), *after)

    def _table(self, width: int) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        # Where not everything fits: first the settings of the layers go, then the memory.
        cells = self._cells()
        chosen = list(cells)
        for absent in ("kind",), ("layer",), ("layer", "memory", "im2col"):
            chosen = [title for title in cells if title not in absent]
            widths = [_LAYER_WIDTH if title == "layer" else max(map(len, cells[title])) for title in chosen]
            if sum(widths) + 2 * len(widths) <= width:  # two characters stand between columns
                break
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for title in chosen:
            left = title in ("name", "layer", "kind", "output")
            table.add_column(
                "" if title in ("name", "layer", "kind") else title,
                justify="left" if left else "right",
                no_wrap=title != "layer",
            )
        for index, row in enumerate([None, *self.rows]):
            style = "dim" if row is None or row.container else None
            table.add_row(*(Text(cells[title][index + 1]) for title in chosen), style=style)
        return table

    def _cells(self) -> dict[str, list[str]]:
        """The columns of the table, each from its title down."""
        rows = self.rows
        return {
            "name": ["", "input", *(row.name for row in rows)],
            "layer": ["", "", *(row.layer for row in rows)],
            "kind": ["", "", *(row.kind for row in rows)],
            "output": ["output", _size(self.input_shape), *(_size(row.output_shape) for row in rows)],
            "parameters": ["parameters", "", *(f"{row.parameters:,}" if row.parameters else "" for row in rows)],
            "MACs": ["MACs", "", *(_count(row.macs) if row.macs else "" for row in rows)],
            "field/stride": ["field/stride", "", *(str(row.view) if row.view else "—" for row in rows)],
            "memory": ["memory", "", *(_bytes(row.activation_bytes) for row in rows)],
            "im2col": ["im2col", "", *(_bytes(row.column_bytes) if row.column_bytes else "" for row in rows)],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.render(options.max_width)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=120, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def summarize(net: Layer, input_shape: Shape) -> Summary:
    """What a net does to one sample of the shape, (H, W, C) for an image, without the batch axis.

    No parameter is drawn and nothing is computed: a description of VGG takes no time and no memory.

    Raises: ArgumentError for what is no layer or no shape; ShapeError naming the layer that cannot take its input.
    """
    expect_a(Layer, "summarize", "net", net)
    try:
        shape = expect_shape(input_shape)
    except ShapeError:
        raise ArgumentError(
            f"input_shape: expected positive sizes, (H, W, C) for an image, got {told(input_shape)}"
        ) from None
    walk = _Walk()
    view = View() if len(shape) == 3 else None
    if isinstance(net, Sequential):
        output_shape, _ = walk.sequence(net, "", 0, shape, view)
    else:
        output_shape, _ = walk.layer(net, type(net).__name__, 0, shape, view)
    rows = tuple(walk.rows)
    # The output of a Sequential is that of its last layer; those of Sum and Concat are arrays of their own.
    arrays = [row for row in rows if row.container != "sequence"]
    return Summary(
        input_shape=shape,
        output_shape=output_shape,
        rows=rows,
        parameters=sum(parameter.size for parameter in net.parameters().values()),
        macs=sum(row.macs for row in rows if not row.container),
        activation_bytes=sum(row.activation_bytes for row in arrays),
        column_bytes=max((row.column_bytes for row in rows), default=0),
    )


class _Walk:
    """Through a net in the order of its forward pass, writing a row for each layer."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.counted: set[int] = set()

    def layer(self, layer: Layer, name: str, depth: int, shape: Shape, view: View | None) -> tuple[Shape, View | None]:
        """The output's shape and view, after adding the rows of the layer and of the layers in it."""
        place = len(self.rows)
        container = None
        if isinstance(layer, Sequential):
            container = "sequence"
            output, seen = self.sequence(layer, f"{name}.", depth + 1, shape, view)
        elif isinstance(layer, Branches):
            container = "branches"
            seen = self.branches(layer, f"{name}.", depth + 1, shape, view)
            output = _output_shape(layer, name, shape)
        else:
            output = _output_shape(layer, name, shape)
            seen = _view(layer, shape, output, view)
        inside = self.rows[place:]
        parameters = sum(row.parameters for row in inside if not row.container) + self.count(layer)
        row = Row(
            name=name,
            depth=depth,
            container=container,
            layer=str(layer),
            kind=type(layer).__name__,
            output_shape=output,
            parameters=parameters,
            macs=layer.macs(shape),
            view=seen,
            activation_bytes=FLOAT32 * math.prod(output),
            column_bytes=FLOAT32 * layer.columns(shape),
        )
        self.rows.insert(place, row)
        return output, seen

    def sequence(
        self, net: Sequential, prefix: str, depth: int, shape: Shape, view: View | None
    ) -> tuple[Shape, View | None]:
        """One layer after another."""
        for name, layer in net.layers.items():
            shape, view = self.layer(layer, prefix + name, depth, shape, view)
        return shape, view

    def branches(self, net: Branches, prefix: str, depth: int, shape: Shape, view: View | None) -> View | None:
        """Side by side over one input: the output sees what any of the branches sees."""
        views = [self.layer(layer, prefix + name, depth, shape, view)[1] for name, layer in net.layers.items()]
        maps = [seen for seen in views if seen is not None]
        if len(maps) < len(views):
            return None
        return View(_largest([seen.field for seen in maps]), _largest([seen.stride for seen in maps]))

    def count(self, layer: Layer) -> int:
        """The numbers in the layer's parameters that have not been counted yet: a shared one counts once."""
        new: dict[int, Parameter] = {id(p): p for p in layer.parameters().values() if id(p) not in self.counted}
        self.counted |= set(new)
        return sum(parameter.size for parameter in new.values())


def _output_shape(layer: Layer, name: str, shape: Shape) -> Shape:
    try:
        return layer.output_shape(shape)
    except ShapeError as error:
        said = str(error) if isinstance(layer, Branches) else f"{layer}: {error}"  # Sum and Concat name themselves
        raise ShapeError(f"{name}: {said} in x {_size(shape)}") from None


def _view(layer: Layer, shape: Shape, output: Shape, view: View | None) -> View | None:
    if view is None or len(output) != 3:
        return None
    if layer.window is not None:
        return view.through(layer.window)
    if output[:2] == shape[:2]:
        return view
    return view.through(Window.of(shape[:2]))


def _largest(pairs: list[Pair]) -> Pair:
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


# --- the drawing --------------------------------------------------------------------------------------------------


def draw(summary: Summary, width: int = 100) -> str:
    """The arrays between the layers as blocks, as in Figure 2 of the AlexNet paper: a net at a glance.

    A block stands for each array that differs in shape from the one before. Its height goes with the square root of
    its map's height, and its width with the logarithm of its channels: in proportion, nothing would be left of 6×6
    beside 227×227. Sum and Concat are one block each.

    Raises: ArgumentError for what is no summary or no width.
    """
    expect_a(Summary, "draw", "summary", summary)
    width = expect_integer("draw", "width", width)
    blocks = [_Block("input", summary.input_shape)]
    inside = None
    for row in summary.rows:
        if inside is not None and row.depth > inside:
            continue
        inside = row.depth if row.container == "branches" else None
        reshaped = len(row.output_shape) != len(blocks[-1].shape) and math.prod(row.output_shape) == math.prod(
            blocks[-1].shape
        )
        if row.container != "sequence" and row.output_shape != blocks[-1].shape and not reshaped:
            blocks.append(_Block(row.name, row.output_shape))
    if len(blocks) == 1:
        return ""
    tallest = max(block.side for block in blocks)
    lines: list[str] = []
    for shelf in _shelves(blocks, width):
        lines += [""] if lines else []
        lines += _shelf(shelf, tallest)
    return "\n".join(lines)


HALF_LINES = 14  # the height of the tallest block, in half lines of text


@dataclass(frozen=True)
class _Block:
    name: str
    shape: Shape

    @property
    def side(self) -> int:
        return self.shape[0] if len(self.shape) == 3 else 1

    @property
    def labels(self) -> tuple[str, str, str]:
        """Below the block: its name, its map, its channels."""
        channels = str(self.shape[-1])
        return self.name, "×".join(map(str, self.shape[:-1])), f"×{channels}" if len(self.shape) > 1 else channels

    @property
    def columns(self) -> int:
        """How wide the block is."""
        return max(1, round(0.6 * math.log2(self.shape[-1])))

    @property
    def room(self) -> int:
        """How wide the block and its labels are."""
        return max(self.columns, *map(len, self.labels))

    def half_lines(self, tallest: int) -> int:
        return max(1, round(HALF_LINES * math.sqrt(self.side / tallest))) if tallest > 1 else 1


def _shelves(blocks: list[_Block], width: int) -> Iterator[list[_Block]]:
    """As many blocks side by side as there is room for."""
    shelf: list[_Block] = []
    for block in blocks:
        if shelf and sum(b.room + 2 for b in [*shelf, block]) - 2 > width:
            yield shelf
            shelf = []
        shelf.append(block)
    yield shelf


def _shelf(blocks: list[_Block], tallest: int) -> list[str]:
    """The blocks on one ground, and their labels under it."""
    height = max(block.half_lines(tallest) for block in blocks)
    lines = []
    for top in range(height + height % 2, 0, -2):  # each line holds the half lines top and top − 1, from the ground
        cells = []
        for block in blocks:
            filled = block.half_lines(tallest)
            mark = "█" if filled >= top else "▄" if filled == top - 1 else " "
            cells.append((mark * block.columns).center(block.room))
        lines.append("  ".join(cells).rstrip())
    for labels in zip(*(block.labels for block in blocks), strict=True):
        lines.append("  ".join(label.center(b.room) for label, b in zip(labels, blocks, strict=True)).rstrip())
    return lines


# --- numbers as people read them ----------------------------------------------------------------------------------


def _short(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


def _size(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _count(number: int) -> str:
    """Three or four digits and a unit.

    >>> _count(950), _count(724406816), _count(15470264320)
    ('950', '724 M', '15.5 G')
    """
    return _scaled(number, 1000, ("", " k", " M", " G", " T"))


def _bytes(number: int) -> str:
    """Three or four digits and a unit.

    >>> _bytes(512), _bytes(4392300), _bytes(115605504)
    ('512 B', '4.19 MiB', '110 MiB')
    """
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while number >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    decimals = 0 if power == 0 or number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{decimals}f}{units[power]}"
