"""Architectures: each file is a table, each function builds one net."""

from minidl.models.alexnet import alexnet, alexnet_mini, alexnet_no_padding
from minidl.models.lenet import lenet5
from minidl.models.registry import MODELS, Model, get, parse
from minidl.models.vgg import vgg16

__all__ = ["MODELS", "Model", "alexnet", "alexnet_mini", "alexnet_no_padding", "get", "lenet5", "parse", "vgg16"]
