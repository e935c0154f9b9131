"""Who can be measured, by name: peers, and the variants of which the better counts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from minidl.bench.work import Contender
from minidl.errors import ArgumentError, UnknownNameError

OURS = "minidl"
CPU = "minidl-cpu"  # ours as well, on the CPU in float32, whatever the others compute on
VARIANTS = {
    CPU: ("",),
    "torch": ("contiguous", "channels_last"),
    "torch-compile": ("contiguous", "channels_last"),
    "onnxruntime": ("",),
    "reference": ("",),
}
PACKAGES = {
    CPU: (),
    "torch": ("torch",),
    "torch-compile": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "reference": (),
}
OP_PEERS = (CPU, "torch", "reference")  # those that run single ops


def make(name: str, threads: int, device: str = "cpu", precision: str = "float32") -> Contender:
    """The contender of a name such as "torch channels_last"; its library is imported now."""
    peer, _, variant = name.partition(" ")
    if peer.startswith("torch"):
        from minidl.bench.pytorch import PyTorch

        return PyTorch(threads, variant, peer == "torch-compile", device, precision)
    if peer == "onnxruntime":
        from minidl.bench.onnx_runtime import OnnxRuntime

        return OnnxRuntime(threads)
    from minidl.bench.ours import Ours

    return Ours(threads) if peer == CPU else Ours(threads, device, precision)


def contenders(peers: Sequence[str]) -> list[str]:
    """Ours, and all variants of the peers.

    Raises: UnknownNameError for an unknown peer; ArgumentError for one that is not installed, or named twice.
    """
    for peer in peers:
        if peer not in VARIANTS:
            raise UnknownNameError("peer", peer, VARIANTS)
        missing = [package for package in PACKAGES[peer] if find_spec(package) is None]
        if missing:
            raise ArgumentError(f"peer {peer!r} is not installed here: pip install {' '.join(missing)}")
    if len(set(peers)) < len(peers):
        raise ArgumentError(f"peer: expected each once, got {', '.join(peers)}")
    return [OURS, *(f"{peer} {variant}".strip() for peer in peers for variant in VARIANTS[peer])]
