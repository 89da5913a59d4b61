"""CUDA graphs: what a call costs without Python, on inputs that are in no cache (cold) or always the same (hot)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapter_fast.measure.clock import event_timer

LEAST_CALLS = 8


@dataclass
class Captured:
    """A graph that holds `calls` calls; `kept` keeps alive what its replays read and write."""

    graph: torch.cuda.CUDAGraph
    calls: int
    kept: list[Any]

    def sample(self) -> float:
        """Microseconds a call, in one replay."""
        return event_timer(self.graph.replay) / self.calls


def capture(prepare: Callable[[Any], Any], run: Callable[[Any], Any], sets: Sequence[Any]) -> Captured:
    """Capture run(prepare(inputs)) over the sets in turn, at least eight calls; only `run` is in the graph.

    `prepare` (the forward pass, where only the backward is measured) goes on the stream that is captured later, since
    autograd runs a backward pass on the stream of its forward.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        states = [prepare(inputs) for inputs in sets]
        for state in states[:3]:
            run(state)
    torch.cuda.synchronize()
    graph, calls = torch.cuda.CUDAGraph(), max(LEAST_CALLS, len(sets))
    # Outputs stay alive until the capture ends: else each call would write where the last one wrote, in cache.
    kept: list[Any] = []
    with torch.cuda.graph(graph, stream=stream):
        for number in range(calls):
            kept.append(run(states[number % len(states)]))
            del kept[: -len(states)]
    graph.replay()
    torch.cuda.synchronize()
    return Captured(graph, calls, [states, kept])
