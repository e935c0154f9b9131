"""Does backward compute the derivative of forward? Any layer, net or loss can be asked:

    from minidl import gradcheck
    report = gradcheck.check(MyLayer(), (2, 5, 5, 3))
    print(report)

Every tensor t that has a gradient (the input, and each parameter) is moved a little to both sides, and the change of
the output is held against what backward says:

    (f(t + ε·v) − f(t − ε·v)) / 2ε   against   (∂f/∂t)·v

The two agree to O(ε²) where f is smooth, and rounding adds about 10⁻¹⁶·|f|/ε: in float64 with ε = 10⁻⁴, both are far
below the 10⁻⁶ that is asked for, and any wrong term is far above.
"""

from minidl.gradcheck.compare import FIRST_KEY, SMALLEST_STEP, check
from minidl.gradcheck.plot import picture_path, plot
from minidl.gradcheck.report import Element, Report, TensorReport
from minidl.gradcheck.sweep import Curve, ErrorMap, Sweep, sweep

__all__ = [
    "FIRST_KEY",
    "SMALLEST_STEP",
    "Curve",
    "Element",
    "ErrorMap",
    "Report",
    "Sweep",
    "TensorReport",
    "check",
    "picture_path",
    "plot",
    "sweep",
]
