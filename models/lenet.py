"""LeNet-5.

Source: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", §II.B.
"""

from __future__ import annotations

from minidl.combine import Sequential
from minidl.layers import AvgPool2d, Conv2d, Flatten, Linear, Tanh
from minidl.models.registry import model


@model(input_size=28, recipe={"lr": 0.05, "init": "glorot"})
def lenet5(num_classes: int = 10, in_channels: int = 1) -> Sequential:
    """LeNet-5 in the form in which it is built today: every map of conv2 sees all of pool1, pools have no weights, and
    the output layer is linear with softmax in the loss instead of radial basis functions.

    >>> sum(parameter.size for parameter in lenet5().parameters().values())
    61706
    """
    # fmt: off
    return Sequential(
        conv1=Conv2d(in_channels, 6, kernel_size=5, padding=2), tanh1=Tanh(),  # 28×28×6
        pool1=AvgPool2d(2),                                                    # 14×14×6
        conv2=Conv2d(6, 16, kernel_size=5), tanh2=Tanh(),                      # 10×10×16
        pool2=AvgPool2d(2), flatten=Flatten(),                                 # 5×5×16 = 400
        fc3=Linear(400, 120), tanh3=Tanh(),
        fc4=Linear(120, 84), tanh4=Tanh(),
        fc5=Linear(84, num_classes),
    )
    # fmt: on
