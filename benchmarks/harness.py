"""Timing: providers take turns in one process, there and back again (ABBA), and we keep the median of the rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
Timer = Callable[[Call], float]


@dataclass(frozen=True)
class Spread:
    """Microseconds of one call: median, and the 20th and 80th percentile of the rounds."""

    p20: float
    p50: float
    p80: float


def spread(samples: Sequence[float]) -> Spread:
    """Percentiles of at least two samples."""
    cuts = statistics.quantiles(samples, n=10, method="inclusive")
    return Spread(cuts[1], cuts[4], cuts[7])


def interleave(calls: dict[str, Call], timer: Timer, rounds: int) -> dict[str, Spread]:
    """Time every call twice a round, in order and then in reverse, so that drift hits all of them alike."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in [*calls, *reversed(calls)]:
            samples[name].append(timer(calls[name]))
    return {name: spread(taken) for name, taken in samples.items()}


def host_timer(call: Call) -> float:
    """Microseconds of one call on the host's clock: for the CPU."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def event_timer(call: Call) -> float:
    """Microseconds of one call between two CUDA events, the launches from Python included."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def repeated(call: Call, times: int, timer: Timer) -> float:
    """Microseconds a call, over `times` calls in a row: for calls shorter than the clock is sharp."""

    def run() -> None:
        for _ in range(times):
            call()

    return timer(run) / times
