"""All layers, one a file, and the containers that combine them."""

from minidl.combine import Concat, Sequential, Sum
from minidl.layer import Buffer, Layer, Parameter
from minidl.layers.avg_pool2d import AvgPool2d
from minidl.layers.batch_norm2d import BatchNorm2d
from minidl.layers.conv2d import Conv2d
from minidl.layers.dropout import Dropout
from minidl.layers.flatten import Flatten
from minidl.layers.global_avg_pool2d import GlobalAvgPool2d
from minidl.layers.global_max_pool2d import GlobalMaxPool2d
from minidl.layers.linear import Linear
from minidl.layers.local_response_norm import LocalResponseNorm
from minidl.layers.log_softmax import LogSoftmax
from minidl.layers.max_pool2d import MaxPool2d
from minidl.layers.relu import ReLU
from minidl.layers.sigmoid import Sigmoid
from minidl.layers.softmax import Softmax
from minidl.layers.tanh import Tanh

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Buffer",
    "Concat",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "Layer",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool2d",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Sum",
    "Tanh",
]
