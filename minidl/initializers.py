"""First values of weights and biases.

An initialiser draws an array of a shape from a generator. A scheme is a table from patterns of parameter names to
initialisers; the last pattern that matches a name wins, so that a table reads from the general to the particular.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

from minidl.arrays import Array, device_of, require_array, to_device
from minidl.errors import ArgumentError, MinidlError, ShapeError, expect_a, expect_number, told
from minidl.layer import Layer, Parameter, Shape, expect_shape
from minidl.patterns import by_pattern
from minidl.random import Key

Initializer = Callable[[Shape, np.random.Generator], Array]
Scheme = Mapping[str, Initializer]


def normal(std: float) -> Initializer:
    """N(0, std²).

    Raises: ArgumentError for a negative deviation, and what is no generator; ShapeError for what is no shape.
    """
    std = expect_number("normal", "std", std, within="[0, inf)")

    def draw(shape: Shape, generator: np.random.Generator) -> Array:
        expect_a(np.random.Generator, "normal", "generator", generator)
        values = generator.standard_normal(expect_shape(shape), dtype=np.float32)
        values *= np.float32(std)
        return values

    return draw


def constant(value: float) -> Initializer:
    """The same value everywhere.

    Raises: ArgumentError for one that is not finite; ShapeError for what is no shape.
    """
    value = expect_number("constant", "value", value)

    def draw(shape: Shape, generator: np.random.Generator) -> Array:
        return np.full(expect_shape(shape), value, np.float32)

    return draw


def he(shape: Shape, generator: np.random.Generator) -> Array:
    """N(0, 2 / fan_in): keeps the variance of activations through ReLU layers.

    fan_in = KH·KW·C/groups, the number of inputs that one output sees.
    Raises: ShapeError as `fans`; ArgumentError for what is no generator.
    Source: He, Zhang, Ren, Sun 2015, arXiv 1502.01852, equation 10.
    """
    return normal(math.sqrt(2 / fans(shape)[0]))(shape, generator)


def glorot(shape: Shape, generator: np.random.Generator) -> Array:
    """Uniform on ±√(6 / (fan_in + fan_out)): keeps the variance both ways through linear layers.

    Raises: ShapeError as `fans`; ArgumentError for what is no generator.
    Source: Glorot and Bengio 2010, equation 16.
    """
    expect_a(np.random.Generator, "glorot", "generator", generator)
    limit = np.float32(math.sqrt(6 / sum(fans(shape))))
    values = generator.random(shape, dtype=np.float32)
    values *= 2 * limit
    values -= limit
    return values


def fans(shape: Shape) -> tuple[int, int]:
    """How many inputs an output sees, and how many outputs an input reaches (ignoring groups).

    >>> fans((11, 11, 3, 96)), fans((9216, 4096))
    ((363, 11616), (9216, 4096))

    Raises: ShapeError for fewer than two axes, as those of a bias, whose outputs see no inputs.
    """
    shape = expect_shape(shape)
    if len(shape) < 2:
        raise ShapeError(f"shape: expected at least two axes, (…, inputs, outputs), got {shape}")
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


SCHEMES: dict[str, Scheme] = {
    "he": {"*weight": he},  # biases begin at 0 anyway
    "glorot": {"*weight": glorot},
}


def initialize(layer: Layer, scheme: Scheme, key: Key) -> None:
    """Give new values to all parameters of a layer or net whose names a pattern of the scheme matches.

    Each parameter draws from `key.at(name)`, so its values do not depend on what else the net holds.
    BatchNorm's scale γ ("gamma") and shift β ("beta") match none of the usual patterns and stay as they are.

    Raises: ArgumentError for a pattern that matches no parameter, as that is a spelling mistake, and for what is no
        layer, scheme or key; what an initialiser raises, and ShapeError for values of another shape, with the name of
        the parameter in front.
    """
    expect_a(Layer, "initialize", "layer", layer)
    expect_a(Key, "initialize", "key", key)
    parameters = layer.parameters()
    for name, initial in by_pattern("init", scheme, parameters).items():
        if not callable(initial):
            raise ArgumentError(f"init: {name}: expected an initialiser, such as normal(0.01), got {told(initial)}")
        try:
            _draw_anew(parameters[name], initial, key.at(name).generator())
        except MinidlError as error:
            error.within(name)
            raise


def _draw_anew(parameter: Parameter, initial: Initializer, generator: np.random.Generator) -> None:
    values = initial(parameter.shape, generator)
    require_array("the first value", values)
    if parameter.is_drawn:
        old = parameter.value
        values = to_device(values.astype(old.dtype, copy=False), device_of(old))
    parameter.value = values


_bare = itertools.count()


def bare(initial: Initializer, shape: Shape) -> Callable[[], Array]:
    """The first value of a layer that stands alone: from Key(0), a different draw for each layer made."""
    key = Key(0).at(next(_bare))
    return lambda: initial(shape, key.generator())
