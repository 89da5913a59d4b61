"""One provider of the op by itself: any function with the signature of reference_adapter, in one of three phases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from adapter_fast import reference_adapter
from adapter_fast.benchmarks.cases import case_name, shape_of
from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.peers.graphs import capture
from adapter_fast.benchmarks.rows.compare import OUR_PROVIDERS
from adapter_fast.common.errors import first_line
from adapter_fast.measure.clock import Sampler, event_timer, host_timer, repeated, settled
from adapter_fast.measure.memory import peak_bytes
from adapter_fast.measure.roofline import minimal_bytes
from adapter_fast.testing import INPUTS, Case, assert_within_budget, call, evaluate, grad_output, make_inputs, truth

EAGER_CALLS = 10  # a sample of eager launches on a GPU
SAMPLE_US = 1000.0  # a sample on a CPU takes at least this long
MOST_SETS = 512
TRAINING = "training forward"


@dataclass
class Inputs:
    """The leaves by name, and the gradient of y that a backward pass is given."""

    tensors: dict[str, Tensor | None]
    dy: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        """Those that are there, in order."""
        return [tensor for name in INPUTS if (tensor := self.tensors[name]) is not None]


@lru_cache(maxsize=1)
def input_sets(case: Case) -> list[Inputs]:
    """Shared by the providers of a case: on a GPU enough to fill its second-level cache three times, else one."""
    count = 1
    if case.device == "cuda":
        cache = torch.cuda.get_device_properties(case.device).L2_cache_size
        count = min(MOST_SETS, max(2, math.ceil(3 * cache / minimal_bytes(shape_of(case), "forward"))))
    seeded = [replace(case, seed=case.seed + 2 * number) for number in range(count)]
    return [Inputs(make_inputs(one), grad_output(one)) for one in seeded]


@lru_cache(maxsize=2)  # two-kernel has a truth of its own
def expected(case: Case, without: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """y and all gradients of the first set: by the reference in float64, and by the reference in the case's dtype."""
    first = input_sets(replace(case, activation="gelu"))[0]
    tensors = {**first.tensors, **dict.fromkeys(without)}
    return truth(case, tensors, first.dy), evaluate(reference_adapter, case, tensors, first.dy)


class LocalOp:
    """A Contender (contender.py) in this process.

    Args:
        name, note: as they stand in the results. op: a function like reference_adapter.
        case: the problem; its device is where it runs. phase: "forward" (without gradients), TRAINING (a forward that
            saves for the backward), "backward", or "forward+backward", in which y is let go of before the backward
            starts, as a model does.
        without: inputs (b_up) that this provider has no place for; it is checked against the reference without them.
    """

    def __init__(
        self, name: str, op: Callable, case: Case, phase: str, note: str = "", without: tuple[str, ...] = ()
    ) -> None:
        self.name, self.op, self.case, self.phase, self.note, self.without = name, op, case, phase, note, without
        self.parameters: int | None = 2 * case.d * case.m + case.d + case.m
        self._graphs: list[Any] = []

    @property
    def sets(self) -> list[Inputs]:
        """What it runs on: the same tensors for every provider of the case."""
        shared = input_sets(replace(self.case, activation="gelu"))
        return [Inputs({**one.tensors, **dict.fromkeys(self.without)}, one.dy) for one in shared]

    def prepare(self, inputs: Inputs) -> Any:
        """What comes before the timed part: the forward pass, where the backward is timed alone."""
        if self.phase != "backward":
            return inputs
        return inputs, get_gradient_edge(call(self.op, self.case, inputs.tensors))

    def run(self, state: Any) -> Any:
        """The timed part. Gradients are returned, never accumulated; dy is a full tensor, as in training."""
        if self.phase == "forward":
            with torch.no_grad():
                return call(self.op, self.case, state.tensors)
        if self.phase == TRAINING:
            return call(self.op, self.case, state.tensors)
        if self.phase == "backward":
            inputs, edge = state  # the graph outlives the call: it is walked many times
            return torch.autograd.grad(edge, inputs.leaves, inputs.dy, retain_graph=True)
        # The value of y is gone once its edge is taken: in a model the layer after has let go of it by now.
        edge = get_gradient_edge(call(self.op, self.case, state.tensors))
        return torch.autograd.grad(edge, state.leaves, state.dy)

    def warm(self) -> None:
        """Run it a few times; Unavailable where it cannot run."""
        try:
            state = self.prepare(self.sets[0])
            for _ in range(3):
                self.run(state)
        except Exception as error:  # whatever a compiler, a missing kernel or a full memory raises
            raise Unavailable(f"{type(error).__name__}: {first_line(error)}") from error

    def check(self) -> None:
        """Hold y and the gradients of the first inputs against float64, within the tests' error budget."""
        exact, plain = expected(self.case, self.without)
        first = self.sets[0]
        if self.phase == "forward":
            results = {"y": self.run(first)}
        else:
            results = evaluate(self.op, self.case, first.tensors, first.dy)
        for name, value in results.items():
            terms = self.case.T if name.startswith(("d_w", "d_b")) else self.case.d + self.case.m
            what = f"{self.name}, {case_name(self.case)}: {name}"
            try:
                assert_within_budget(value, exact[name], plain[name], terms=terms, name=what)
            except AssertionError:
                if self.name in OUR_PROVIDERS:
                    raise
                assert_within_budget(value, exact[name], plain[name], terms=terms, name=what, mean=False)
                words = f"{name} is less exact than PyTorch's own"
                if words not in self.note:
                    self.note = "; ".join(filter(None, [self.note, words]))

    def peak(self) -> int:
        """Peak bytes of one call; what its phase needs was prepared before."""
        state = self.prepare(self.sets[0])
        return peak_bytes(lambda: self.run(state), self.case.device)

    def sampler(self, mode: str) -> Sampler:
        """Times the mode "eager" everywhere, "graph-cold" and "graph-hot" on a GPU."""
        if mode == "eager":
            return self._eager_gpu() if self.case.device == "cuda" else self._eager_cpu()
        sets = self.sets if mode == "graph-cold" else self.sets[:1]
        try:
            captured = capture(self.prepare, self.run, sets)
        except Exception as error:  # an operation that a capture forbids
            raise Unavailable(f"no CUDA graph: {first_line(error)}") from error
        self._graphs.append(captured)
        return settled(captured.sample)

    def _eager_cpu(self) -> Sampler:
        state = self.prepare(self.sets[0])
        once = sorted(host_timer(lambda: self.run(state)) for _ in range(3))[1]
        times = max(1, math.ceil(SAMPLE_US / once))
        return settled(lambda: repeated(lambda: self.run(state), times, host_timer))

    def _eager_gpu(self) -> Sampler:
        states = cycle([self.prepare(inputs) for inputs in self.sets])
        return settled(lambda: repeated(lambda: self.run(next(states)), EAGER_CALLS, event_timer))

    def close(self) -> None:
        """Let go of the CUDA graphs."""
        self._graphs.clear()
