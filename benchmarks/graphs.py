"""CUDA graphs: what a call costs without Python, on inputs that are in no cache (cold) or always the same (hot)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch

from benchmarks.cases import OpCase, OpInputs

LEAST_CALLS = 8
MOST_SETS = 1024


def rotation(case: OpCase, device: str = "cuda") -> list[OpInputs]:
    """Sets of inputs that fill the second-level cache three times, so that each call finds its own set evicted."""
    first = case.make(device)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    count = min(MOST_SETS, max(2, math.ceil(3 * cache / first.nbytes)))
    return [first, *(case.make(device, seed) for seed in range(1, count))]


def capture(function: Callable[[OpInputs], object], sets: Sequence[OpInputs]) -> tuple[torch.cuda.CUDAGraph, int]:
    """A graph of `function` over the sets in turn, at least eight calls, and how many calls it holds."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for inputs in islice(cycle(sets), 3):
            function(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph, calls = torch.cuda.CUDAGraph(), max(LEAST_CALLS, len(sets))
    # Outputs stay alive until the capture ends: else each call would write where the last one wrote, in cache.
    kept = []
    with torch.cuda.graph(graph):
        for inputs in islice(cycle(sets), calls):
            kept.append(function(inputs))
            del kept[: -len(sets)]
    return graph, calls
