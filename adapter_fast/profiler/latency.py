"""Latency, launches and peak memory of a forward with adapters and of the bare one, in turns, and their difference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from ..measure import clock
from ..measure.memory import peak_bytes
from . import modes
from .request import Request
from .subject import Subject

SIDES = ("bare", "adapters")


@dataclass(frozen=True)
class Side:
    """One of the two models. Times in microseconds; on a CPU there is no device time apart from the host's: None."""

    samples: list[float]  # one a forward, from the call to the end of its work
    host_us: float | None  # until the Python call returns
    device_us: float | None  # between two CUDA events around the call
    kernel_us: float | None  # sum of the kernels' times
    launches: int | None  # what ran on the GPU; on a CPU ATen operations; None for a model compiled for a CPU
    peak_bytes: int  # above parameters and inputs; of a CUDA graph: of the call that was captured
    compile_seconds: float | None

    @property
    def latency(self) -> clock.Spread:
        """Percentiles of the samples."""
        return clock.spread(self.samples)


@dataclass(frozen=True)
class Overhead:
    """With adapters less bare, of pairs of neighbours in time: median and p20, p80, in microseconds and percent."""

    us_p20: float
    us_p50: float
    us_p80: float
    percent_p20: float
    percent_p50: float
    percent_p80: float


def steps_of(request: Request) -> int:
    """How often `measure` ticks."""
    rounds = -(-request.repeats // 2)
    return len(SIDES) + rounds * (1 if request.device == "cpu" else 3)


@torch.no_grad()
def measure(request: Request, subject: Subject, tick: Callable[[], object] = lambda: None) -> dict[str, Side]:
    """Both sides, "bare" and "adapters", called as the request says; tick: called steps_of(request) times.

    Raises:
        ProfileError: the model cannot be compiled or captured.
    """
    device, rounds = request.device, -(-request.repeats // 2)
    eager = {side: modes.eager(model, subject.inputs) for side, model in zip(SIDES, (subject.bare, subject.model))}
    calls: dict[str, modes.Call] = {}
    peaks: dict[str, int] = {}
    seconds: dict[str, float | None] = {}
    for side, model in zip(SIDES, (subject.bare, subject.model)):
        call, seconds[side] = eager[side], None
        if request.compiled:
            call, seconds[side] = modes.compiled(model, subject.inputs)
        for _ in range(modes.WARM_UP):
            call()
        peaks[side] = peak_bytes(call, device)
        calls[side] = modes.captured(call) if request.cuda_graph else call
        tick()
    modes.check_same(calls, eager)
    waits = _in_turns(calls, clock.host_timer if device == "cpu" else clock.synchronized_timer, rounds, tick)
    host = device_times = None
    if device == "cuda":
        host = _in_turns(calls, _returning_timer, rounds, tick)
        device_times = _in_turns(calls, clock.event_timer, rounds, tick)
    sides = {}
    for side, call in calls.items():
        work = modes.work_of(call, device, request.compiled)
        sides[side] = Side(
            samples=waits[side],
            host_us=None if host is None else median(host[side]),
            device_us=None if device_times is None else median(device_times[side]),
            kernel_us=work.kernel_us,
            launches=work.launches,
            peak_bytes=peaks[side],
            compile_seconds=seconds[side],
        )
    return sides


def _in_turns(
    calls: dict[str, modes.Call], timer: clock.Timer, rounds: int, tick: Callable[[], object]
) -> clock.Samples:
    return clock.interleave({side: partial(timer, call) for side, call in calls.items()}, rounds, tick)


def _returning_timer(call: modes.Call) -> float:
    """Microseconds from an idle GPU until the Python call returns, its work on the GPU still under way."""
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def overhead(adapters: Sequence[float], bare: Sequence[float]) -> Overhead:
    """Of samples taken in turns, paired by their place in the run."""
    pairs = list(zip(adapters, bare, strict=True))
    us = clock.spread([mine - theirs for mine, theirs in pairs])
    percent = clock.spread([100 * (mine - theirs) / theirs for mine, theirs in pairs])
    return Overhead(us.p20, us.p50, us.p80, percent.p20, percent.p50, percent.p80)
