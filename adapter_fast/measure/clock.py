"""Timing: whoever is timed takes turns in one process, there and back again (ABBA), and percentiles are kept."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
Timer = Callable[[Call], float]
Sampler = Callable[[], float]
CHANCE = 0.01  # of a difference where there is none


@dataclass(frozen=True)
class Spread:
    """Percentiles of a call's time, in microseconds."""

    p20: float
    p50: float
    p80: float
    p90: float
    p99: float

    @property
    def jitter(self) -> float:
        """p99 over p50, less one: how far the slow calls are from the usual one, as a fraction."""
        return self.p99 / self.p50 - 1.0


def spread(samples: Sequence[float]) -> Spread:
    """Percentiles of at least two samples, interpolated between neighbours."""
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return Spread(*(cuts[percent - 1] for percent in (20, 50, 80, 90, 99)))


def interleave(samplers: Mapping[str, Sampler], rounds: int, tick: Callable[[], object] | None = None) -> Samples:
    """Take two samples of each a round, in order and then in reverse, so that drift hits all of them alike.

    Args:
        samplers: by name, a function that runs its call once or several times and returns microseconds a call.
        rounds: at least one. tick: called after each round, for a progress bar.

    Returns:
        The samples by name, 2 · rounds each, in the order they were taken.
    """
    taken: Samples = {name: [] for name in samplers}
    for _ in range(rounds):
        for name in [*samplers, *reversed(list(samplers))]:
            taken[name].append(samplers[name]())
        if tick is not None:
            tick()
    return taken


Samples = dict[str, list[float]]


def compare(samples: Sequence[float], baseline: Sequence[float]) -> str:
    """ "faster", "slower" or "same": how one side of an interleaved run stands to the other.

    Samples of one place in the run are neighbours in time, so that drift and load of the machine hit both alike. A
    difference counts when the sign test of these pairs rejects chance at CHANCE; it asks how often one is the slower,
    not by how much, so a few samples that were interrupted decide nothing.
    """
    pairs = list(zip(samples, baseline, strict=True))
    slower = sum(mine > theirs for mine, theirs in pairs)
    faster = sum(mine < theirs for mine, theirs in pairs)
    n = slower + faster
    tail = sum(math.comb(n, k) for k in range(max(slower, faster), n + 1))
    if n == 0 or 2 * tail / 2**n > CHANCE:
        return "same"
    return "slower" if slower > faster else "faster"


def settled(sampler: Sampler) -> Sampler:
    """A sampler whose every sample follows an unmeasured one, so that caches, clocks and threads are its own.

    Whoever ran before leaves caches full of other weights, and threads of a process that waited for its turn asleep.
    """

    def sample() -> float:
        sampler()
        return sampler()

    return sample


def host_timer(call: Call) -> float:
    """Microseconds of one call on the host's clock: for the CPU."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def synchronized_timer(call: Call) -> float:
    """Microseconds on the host's clock from an idle GPU to the end of the call's work there: what a user waits."""
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    call()
    torch.cuda.synchronize()
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
