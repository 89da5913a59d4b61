"""The tuner's view of a device: what the rules choose there, who is right, and how long each takes."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from adapter_fast.benchmarks.cases import shape_of
from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.peers.op import expected, input_sets
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.benchmarks.tiles.tune.campaign import Target
from adapter_fast.benchmarks.tiles.tune.examine import Candidate, Examiners, Verdict, at_a_time
from adapter_fast.benchmarks.tiles.tune.forced import Choices, ForcedOp
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem
from adapter_fast.kernels.tiles import ruled
from adapter_fast.measure.clock import Sampler, Spread, event_timer, host_timer, interleave, spread
from adapter_fast.measure.roofline import floor_us, measure_ceilings
from adapter_fast.ops.problem import problem as problem_of


class Clock(Protocol):
    """What a session asks of a device; the tests have one that makes times up."""

    origin: Mapping[str, Any]  # provenance of every row
    copy_gbps: float

    def problem(self, target: Target, T: int) -> Problem:
        """The problem that the launches of this shape have here."""

    def ruled(self, phase: Phase, problem: Problem) -> LaunchConfig:
        """The choice of the rules, whatever was tuned before."""

    def examine(self, tasks: Sequence[Candidate]) -> list[Verdict]:
        """Whether each compiles, spills nothing and is right."""

    def time(
        self, target: Target, T: int, phase: str, memory: str, tiles: Mapping[LaunchConfig, Choices], rounds: int
    ) -> dict[LaunchConfig, Spread]:
        """Microseconds of the op's "forward" or "backward" with each of these tiles, taking turns; fails: left out."""

    def floor_us(self, target: Target, T: int, phase: str) -> float:
        """The roofline of that at this device's rates."""


class DeviceClock:
    """A GPU through CUDA graphs on cold inputs, or for a rehearsal a CPU through Triton's interpreter.

    Args:
        device: "cuda" or "cpu". dtype: what the ceilings are measured in.
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device = device
        self.origin: Mapping[str, Any] = provenance(device)
        rehearsing = device == "cpu"
        self._ceilings = (
            measure_ceilings(device, torch.float32, host_timer, rounds=3)
            if rehearsing
            else measure_ceilings(device, dtype, event_timer)
        )
        self.copy_gbps = self._ceilings.copy_gbps
        self._examiners = Examiners(at_a_time(device))

    def problem(self, target: Target, T: int) -> Problem:
        """That of the op's own launches, without what the environment asks for."""
        found = problem_of(torch.device(target.device), target.dtype, target.weight_dtype, T, target.d, target.m)
        return replace(found, optional=(), forced=())

    def ruled(self, phase: Phase, problem: Problem) -> LaunchConfig:
        """The rules of kernels/tiles.py, without its tuned tables."""
        return ruled(phase, problem)

    def examine(self, tasks: Sequence[Candidate]) -> list[Verdict]:
        """Each in a process that may crash."""
        return self._examiners.examine(tasks)

    def floor_us(self, target: Target, T: int, phase: str) -> float:
        """The roofline at the rates measured when this began."""
        direction = "forward" if phase == "forward" else "backward"
        return floor_us(shape_of(target.case(T)), direction, self._ceilings)  # type: ignore[arg-type]

    def time(
        self, target: Target, T: int, phase: str, memory: str, tiles: Mapping[LaunchConfig, Choices], rounds: int
    ) -> dict[LaunchConfig, Spread]:
        """By CUDA graphs on cold inputs; in a rehearsal by single calls."""
        samplers: dict[str, Sampler] = {}
        configs: dict[str, LaunchConfig] = {}
        ops = []
        try:
            for number, (config, choices) in enumerate(tiles.items()):
                op = ForcedOp(str(number), target.case(T), phase, memory, choices)
                ops.append(op)
                try:
                    sampler = self._sampler(op)
                    sampler()
                except Unavailable:
                    continue
                samplers[op.name], configs[op.name] = sampler, config
            samples = interleave(samplers, rounds) if samplers else {}
            return {configs[name]: spread(taken) for name, taken in samples.items()}
        finally:
            for op in ops:
                op.close()
            self._forget()

    def _sampler(self, op: ForcedOp) -> Sampler:
        if self.device == "cpu":  # the interpreter takes a thousand times as long: one call a sample
            state = op.prepare(op.sets[0])
            return lambda: host_timer(lambda: op.run(state))
        op.warm()
        return op.sampler("graph-cold")

    def close(self) -> None:
        """End the examiners and let go of the inputs."""
        self._examiners.close()
        input_sets.cache_clear()
        expected.cache_clear()
        self._forget()

    def _forget(self) -> None:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
