"""Layers made of layers: one after another, side by side added, side by side stacked.

Three containers are enough for AlexNet, for residual blocks (`Sum`) and for inception blocks (`Concat`). Each is
itself a layer, so they nest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from minidl.arrays import Array, array_module
from minidl.errors import ArgumentError, MinidlError, ShapeError, UnknownNameError, expect_a, told
from minidl.layer import Layer, Shape, expect_pair
from minidl.random import Key


class Container(Layer):
    """A layer that holds others by name. Unnamed ones are called "0", "1", …

    The names appear in the dotted paths of parameters, in error messages and in the keys from which random layers
    draw.

    Raises: ArgumentError for what is no layer, and for a name that is empty or has a dot, as paths would be ambiguous;
        UnknownNameError for a name that it does not hold.
    """

    def __init__(self, *unnamed: Layer, **named: Layer) -> None:
        numbered = {str(i): layer for i, layer in enumerate(unnamed)}
        for name in numbered.keys() & named.keys():
            raise ArgumentError(f"{type(self).__name__}: {name!r} is the name of an unnamed layer; choose another")
        self.layers: dict[str, Layer] = numbered | named
        for name, layer in self.layers.items():
            if not isinstance(layer, Layer):
                cure = "; a list goes in with a star: *layers" if isinstance(layer, list | tuple) else ""
                cure = f"; make one: {layer.__name__}(…)" if isinstance(layer, type) else cure
                raise ArgumentError(f"{type(self).__name__}: expected a layer as {name!r}, got {told(layer)}{cure}")
            if not name or "." in name:
                raise ArgumentError(f"{type(self).__name__}: expected a name without dots, got {name!r}")

    def children(self) -> dict[str, Layer]:
        """The layers inside this one, by name."""
        return self.layers

    def __getitem__(self, name: str) -> Layer:
        if name not in self.layers:
            raise UnknownNameError(f"layer of {self}", name, self.layers)
        return self.layers[name]

    def __repr__(self) -> str:
        lines = (f"{name}={layer!r},".replace("\n", "\n    ") for name, layer in self.layers.items())
        body = "".join(f"    {line}\n" for line in lines)
        return f"{type(self).__name__}(\n{body})" if body else f"{type(self).__name__}()"

    def __str__(self) -> str:
        return f"{type(self).__name__} of {len(self.layers)}"

    def _forward_child(self, name: str, x: Array, train: bool, key: Key | None) -> tuple[Array, Any]:
        if key is not None:
            expect_a(Key, str(self), "key", key)
        with _inside(name):
            layer = self.layers[name]
            return expect_pair(layer, layer.forward(x, train=train, key=key.at(name) if key else None))

    def _backward_child(self, name: str, dy: Array, cache: Any, input_gradient: bool) -> Array | None:
        with _inside(name):
            dx = self.layers[name].backward(dy, cache, input_gradient=input_gradient)
            if dx is None and input_gradient:
                raise ArgumentError(f"{self.layers[name]}: expected backward to return dx, got None")
            return dx

    def _child_shape(self, name: str, shape: Shape) -> Shape:
        with _inside(name):
            return self.layers[name].output_shape(shape)

    def _child_caches(self, cache: Any) -> list[Any]:
        """The children's caches, in their order, from one's own.

        Raises: ArgumentError where it is not a list of one for each.
        """
        caches: list[Any] = self.kept(cache, is_list)
        if len(caches) != len(self.layers):
            raise ArgumentError(
                f"{self}: expected a cache of {len(self.layers)} layers, got {len(caches)}; backward uses a cache up: "
                "run forward(x, train=True, key=…) again with the same key"
            )
        return caches

    def decisions(self, cache: Any) -> list[Array]:
        """See `Layer.decisions`."""
        pairs = zip(self.layers.values(), self._child_caches(cache), strict=True)
        return [decision for layer, inner in pairs for decision in layer.decisions(inner)]


def is_list(value: object) -> bool:
    """Whether it is a list, as the caches of several layers are."""
    return isinstance(value, list)


@contextmanager
def _inside(name: str) -> Iterator[None]:
    try:
        yield
    except MinidlError as error:
        error.within(name)
        raise


class Sequential(Container):
    """y = f_L(… f₂(f₁(x)) …): each layer takes the output of the one before; empty, it is the identity.

    Backward is the chain rule read from the end. The cache is the list of the layers' caches; backward empties it
    from its end, so that the memory of a layer is free as soon as its gradient is known.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, list[Any] | None]:
        """See `Layer.forward`."""
        if not self.layers:
            self.check(x)
        caches: list[Any] = []
        for name in self.layers:
            x, cache = self._forward_child(name, x, train, key)
            caches.append(cache)
        return x, caches if train else None

    def backward(self, dy: Array, cache: list[Any], *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`. The first layer alone may be spared its input gradient."""
        self._child_caches(cache)
        dx: Array | None = dy
        for index, name in reversed(list(enumerate(self.layers))):
            is_first = index == 0
            dx = self._backward_child(name, cast(Array, dx), cache.pop(), input_gradient or not is_first)
        return dx if input_gradient else None

    def without(self, *names: str) -> Sequential:
        """The same layers, not copied, less some.

        Raises: UnknownNameError for a name that it does not hold.
        """
        removed = {name: self[name] for name in names}
        return Sequential(**{name: layer for name, layer in self.layers.items() if name not in removed})

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        for name in self.layers:
            shape = self._child_shape(name, shape)
        return shape

    def macs(self, shape: Shape) -> int:
        """See `Layer.macs`."""
        total = 0
        for layer in self.layers.values():
            total += layer.macs(shape)
            shape = layer.output_shape(shape)
        return total

    def columns(self, shape: Shape) -> int:
        """See `Layer.columns`: those of the layer that lays out most, as only one does at a time."""
        most = 0
        for layer in self.layers.values():
            most = max(most, layer.columns(shape))
            shape = layer.output_shape(shape)
        return most


class Branches(Container):
    """Layers side by side over the same x; what becomes of their outputs is up to `Sum` and `Concat`.

    Since every branch reads x, ∂loss/∂x is the sum of the branches' gradients.
    """

    def __init__(self, *unnamed: Layer, **named: Layer) -> None:
        super().__init__(*unnamed, **named)
        if not self.layers:
            raise ArgumentError(f"{type(self).__name__}: expected at least one branch, got none")

    def _forward_all(self, x: Array, train: bool, key: Key | None) -> tuple[list[Array], list[Any]]:
        results = [self._forward_child(name, x, train, key) for name in self.layers]
        return [y for y, _ in results], [cache for _, cache in results]

    def _backward_all(self, dys: list[Array], caches: list[Any], input_gradient: bool) -> Array | None:
        names = list(self.layers)
        dxs = [
            self._backward_child(name, dy, cache, input_gradient)
            for name, dy, cache in zip(names, dys, caches, strict=True)
        ]
        return _total([dx for dx in dxs if dx is not None]) if input_gradient else None

    def _shapes(self, shape: Shape) -> dict[str, Shape]:
        return {name: self._child_shape(name, shape) for name in self.layers}

    def macs(self, shape: Shape) -> int:
        """See `Layer.macs`."""
        return sum(layer.macs(shape) for layer in self.layers.values())

    def columns(self, shape: Shape) -> int:
        """See `Layer.columns`: those of the branch that lays out most, as only one does at a time."""
        return max(layer.columns(shape) for layer in self.layers.values())


class Sum(Branches):
    """y = Σ_b f_b(x): a residual block is `Sum(body=Sequential(…), shortcut=Sequential())`.

    Backward: dy goes into every branch unchanged, and dx is the sum of what they return.
    Raises: ShapeError where the branches' outputs differ in shape.
    Source: He, Zhang, Ren, Sun 2015, arXiv 1512.03385.
    """

    def forward(self, x: Array, *, train: bool = False, key: Key | None = None) -> tuple[Array, list[Any] | None]:
        """See `Layer.forward`."""
        ys, caches = self._forward_all(x, train, key)
        self._common({name: y.shape for name, y in zip(self.layers, ys, strict=True)})
        return _total(ys), caches if train else None

    def backward(self, dy: Array, cache: list[Any], *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        return self._backward_all([dy] * len(self.layers), self._child_caches(cache), input_gradient)

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return self._common(self._shapes(shape))

    def _common(self, shapes: dict[str, Shape]) -> Shape:
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {s}" for name, s in shapes.items())
            raise ShapeError(f"{self}: expected branches of equal output shapes, got {listed}")
        return next(iter(shapes.values()))


class Concat(Branches):
    """y = [f₁(x), f₂(x), …] along the channels: an inception block.

    Backward: dy is cut where the outputs met, and dx is the sum of what the branches return.
    Raises: ShapeError where the outputs differ in more than their channels.
    Source: Szegedy et al. 2014, arXiv 1409.4842.
    """

    def forward(
        self, x: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[Array, tuple[list[Any], list[int]] | None]:
        """See `Layer.forward`."""
        ys, caches = self._forward_all(x, train, key)
        self._joined({name: y.shape for name, y in zip(self.layers, ys, strict=True)})
        y = array_module(x).concatenate(ys, axis=-1)
        return y, (caches, [branch.shape[-1] for branch in ys]) if train else None

    def backward(self, dy: Array, cache: tuple[list[Any], list[int]], *, input_gradient: bool = True) -> Array | None:
        """See `Layer.backward`."""
        caches, widths = self._child_caches(cache), cache[1]
        self.check_gradient(dy, (*getattr(dy, "shape", ())[:-1], sum(widths)))  # the rest is for the branches to check
        dys, start = [], 0
        for width in widths:
            dys.append(dy[..., start : start + width])
            start += width
        return self._backward_all(dys, caches, input_gradient)

    def output_shape(self, shape: Shape) -> Shape:
        """See `Layer.output_shape`."""
        return self._joined(self._shapes(shape))

    def _joined(self, shapes: dict[str, Shape]) -> Shape:
        if len({shape[:-1] for shape in shapes.values()}) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ShapeError(f"{self}: expected branches that differ in channels only, got {listed}")
        first = next(iter(shapes.values()))
        return (*first[:-1], sum(shape[-1] for shape in shapes.values()))

    def _child_caches(self, cache: tuple[list[Any], list[int]]) -> list[Any]:
        return super()._child_caches(self.kept(cache, is_list, is_list)[0])


def _total(arrays: list[Array]) -> Array:
    """The sum in a fresh array, except that a single array is its own sum."""
    if len(arrays) == 1:
        return arrays[0]
    total = arrays[0] + arrays[1]
    for array in arrays[2:]:
        total += array
    return total
