"""Benchmarks: how fast minidl is beside its peers and beside the machine, in runs whose results were compared first.

from minidl.bench import measure_net
measure_net("alexnet_mini", mode="train", batch=128, peers=["torch"])
"""

from minidl.bench.measure import measure_net, measure_ops

__all__ = ["measure_net", "measure_ops"]
