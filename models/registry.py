"""The list of all models by name. A new model is a function with `@model(…)` over it in a file of this folder."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from minidl.combine import Sequential
from minidl.errors import ArgumentError, UnknownNameError, expect_flag, expect_integer, told
from minidl.initializers import SCHEMES, Scheme

Factory = TypeVar("Factory", bound=Callable[..., Sequential])

MODELS: dict[str, Model] = {}


@dataclass(frozen=True)
class Model:
    """A named architecture: the function that builds it, the image it expects, its own initial schemes, and the
    training settings that suit it where they differ from the defaults.
    """

    name: str
    factory: Callable[..., Sequential]
    input_size: int
    schemes: Mapping[str, Scheme]
    recipe: Mapping[str, Any]

    def build(self, **options: Any) -> Sequential:
        """A net of this architecture.

        Raises: UnknownNameError for an option that it does not have; ArgumentError for a value that it cannot take.
        """
        known = inspect.signature(self.factory).parameters
        for name, value in options.items():
            if name not in known:
                raise UnknownNameError(f"option of {self.name}", name, known)
            if isinstance(known[name].default, bool):
                options[name] = expect_flag(self.name, name, value)
            elif isinstance(known[name].default, int):
                options[name] = expect_integer(self.name, name, value)
        return self.factory(**options)

    @property
    def input_channels(self) -> int:
        """The channels that the model expects unless told otherwise."""
        default: int = inspect.signature(self.factory).parameters["in_channels"].default
        return default

    def scheme(self, name: str) -> Scheme:
        """An initial scheme by name: "he", "glorot", or one of the model's own.

        Raises: UnknownNameError listing those that exist for this model.
        """
        schemes = {**SCHEMES, **self.schemes}
        if not isinstance(name, str) or name not in schemes:
            raise UnknownNameError(f"init for {self.name}", name, schemes)
        return schemes[name]


def parse(spec: str) -> tuple[Model, dict[str, Any]]:
    """A model and its options, from a name or from a call with plain values.

    >>> architecture, options = parse("alexnet(groups=1, lrn=False)")
    >>> architecture.name, options
    ('alexnet', {'groups': 1, 'lrn': False})

    Raises: ArgumentError for another form; UnknownNameError for an unknown model.
    """
    if not isinstance(spec, str):
        raise ArgumentError(f"model: expected a name, got {told(spec)}")
    if spec.isidentifier():
        return get(spec), {}
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(spec)
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, TypeError, ValueError):
        raise ArgumentError(f"model: expected a name or a call such as 'alexnet(groups=1)', got {spec!r}") from None
    return get(call.func.id), options


def model(
    input_size: int, schemes: Mapping[str, Scheme] | None = None, recipe: Mapping[str, Any] | None = None
) -> Callable[[Factory], Factory]:
    """Register a function that builds a net, under its own name."""

    def register(factory: Factory) -> Factory:
        MODELS[factory.__name__] = Model(factory.__name__, factory, input_size, schemes or {}, recipe or {})
        return factory

    return register


def get(name: str) -> Model:
    """The model of a name.

    Raises: UnknownNameError ("did you mean …").
    """
    if not isinstance(name, str) or name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    return MODELS[name]
