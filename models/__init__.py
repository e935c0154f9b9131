"""Architectures: each file is a table, each function builds one net."""

from minidl.models.alexnet import alexnet, alexnet_mini, alexnet_no_padding, bvlc_alexnet
from minidl.models.lenet import lenet5
from minidl.models.registry import MODELS, Model, get, parse
from minidl.models.vgg import vgg11, vgg13, vgg16, vgg19

__all__ = [
    "MODELS", "Model", "alexnet", "alexnet_mini", "alexnet_no_padding", "bvlc_alexnet", "get", "lenet5", "parse",
    "vgg11", "vgg13", "vgg16", "vgg19",
]  # fmt: skip
