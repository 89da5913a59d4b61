"""Who computes the op: ours, the plain reference, two launches of cuBLASLt, torch.compile at its best, AdapterHub."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor

from adapter_fast import fused_adapter, reference_adapter
from adapter_fast.benchmarks.peers.contender import Contender, Factory, Unavailable
from adapter_fast.benchmarks.peers.op import LocalOp
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.measure.clock import Sampler
from adapter_fast.testing import Case

TRIALS = 5  # samples of each way to compile, to keep the fastest
_BEST = {"max_autotune": True, "coordinate_descent_tuning": True, "triton.enable_persistent_tma_matmul": True}
# torch.compile's modes by the names its users know; the second is widened by the TMA templates.
COMPILE: dict[str, dict[str, Any]] = {
    "default": {},
    "max-autotune-no-cudagraphs": _BEST,
    "max-autotune": {**_BEST, "triton.cudagraphs": True},
}


def op_contenders(case: Case, phase: str, autotune: bool, modes: bool = False) -> dict[str, Factory]:
    """By name, whoever is measured on one shape and phase; each factory may raise Unavailable.

    modes: ours in every memory mode.
    """
    contenders = {
        "fused": lambda: LocalOp("fused", fused_adapter, case, phase),
        "reference": lambda: LocalOp("reference", reference_adapter, case, phase),
        "two-kernel": lambda: two_kernel(case, phase),
        "compile": lambda: CompiledOp(case, phase, autotune),
        "adapterhub": lambda: adapterhub(case, phase),
    }
    return contenders | memory_modes(case, phase) if modes else contenders


def memory_modes(case: Case, phase: str) -> dict[str, Factory]:
    """Ours once more, in the modes that keep less for the backward pass than "speed" does."""

    def keeping(memory: str) -> LocalOp:
        return LocalOp(f"fused-{memory}", partial(fused_adapter, memory=memory), case, phase)

    return {f"fused-{memory}": partial(keeping, memory) for memory in MEMORY_MODES if memory != "speed"}


def adapterhub(case: Case, phase: str) -> Contender:
    """AdapterHub's own module, in a process of its own."""
    from adapter_fast.benchmarks.peers.adapterhub import adapterhub_op

    return adapterhub_op(case, phase)


def two_kernel(case: Case, phase: str) -> LocalOp:
    """PyTorch's shortest eager form: a product with the activation in its epilogue, then a product onto x."""
    if phase != "forward":  # nor a training forward
        raise Unavailable("no backward: aten::_addmm_activation has no derivative")
    activation = "gelu_tanh" if case.device == "cuda" else "gelu"  # cuBLASLt's epilogue is the tanh form
    note = f"{activation}, no b_up: the only form there is, and less work than the others do"
    return LocalOp("two-kernel", _two_kernel, replace(case, activation=activation), phase, note, without=("b_up",))


def _two_kernel(
    x: Tensor,
    w_down: Tensor,
    b_down: Tensor,
    w_up: Tensor,
    b_up: None,
    *,
    residual: None,
    activation: str,
    scale: float,
) -> Tensor:
    h = torch._addmm_activation(b_down.to(x.dtype), x, w_down.to(x.dtype).t(), use_gelu=True)
    return torch.addmm(x, h, w_up.to(x.dtype).t(), alpha=scale)


class CompiledOp(LocalOp):
    """torch.compile of the reference, static shapes: every mode is tried, the fastest of this shape is kept.

    Args:
        autotune: try the max-autotune modes as well, which takes most of a minute a shape on a GPU.
    """

    def __init__(self, case: Case, phase: str, autotune: bool) -> None:
        super().__init__("compile", reference_adapter, case, phase)
        self.autotune = autotune
        self.modes: dict[str, Callable[..., Tensor]] = {}
        self.eager_mode = self.graph_mode = "default"

    def warm(self) -> None:
        """Compile, time each mode a few times, keep the best; Unavailable where none compiles."""
        failures = []
        times: dict[str, dict[str, float]] = {"eager": {}, "graph": {}}
        for mode in self._candidates():
            self.op = compiled(mode)
            try:
                # The backward alone is walked again and again, and a donated buffer is gone after the first time.
                with torch._functorch.config.patch(donated_buffer=self.phase != "backward"):
                    super().warm()
                times["eager"][mode] = self._quick("eager")
                if self.case.device == "cuda" and mode != "max-autotune":  # that one is a graph already
                    times["graph"][mode] = self._quick("graph-cold")
            except Unavailable as error:
                failures.append(f"{mode}: {error}")
                continue
            self.modes[mode] = self.op
        if not self.modes:
            raise Unavailable("; ".join(failures))
        self.eager_mode = min(times["eager"], key=times["eager"].__getitem__)
        self.graph_mode = min(times["graph"], key=times["graph"].__getitem__, default=self.eager_mode)
        self.op = self.modes[self.graph_mode]
        chosen = self.eager_mode
        if self.graph_mode != self.eager_mode:
            chosen = f"{chosen}, and in a graph {self.graph_mode}"
        tried = "" if len(self.modes) == 1 else f", the fastest of {len(self.modes)} modes"
        self.note = "; ".join([f"mode {chosen}{tried}", *failures])

    def check(self) -> None:
        """Both choices."""
        for mode in {self.eager_mode, self.graph_mode}:
            self.op = self.modes[mode]
            super().check()
        self.op = self.modes[self.graph_mode]

    def sampler(self, mode: str) -> Sampler:
        """That of the mode's fastest: eager launches and graphs may have different winners."""
        self.op = self.modes[self.eager_mode if mode == "eager" else self.graph_mode]
        sampler = super().sampler(mode)
        if mode != "eager":
            return sampler
        op = self.op

        def sample() -> float:
            self.op = op
            return sampler()

        return sample

    def close(self) -> None:
        """Let go of graphs and of what torch.compile made."""
        super().close()
        self.modes.clear()
        torch._dynamo.reset()

    def _candidates(self) -> list[str]:
        if not self.autotune:
            return ["default"]
        if self.case.device != "cuda":
            return ["default", "max-autotune-no-cudagraphs"]
        # A backward pass walked twice is not what torch.compile's own graphs are made for.
        return [mode for mode in COMPILE if mode != "max-autotune" or self.phase != "backward"]

    def _quick(self, mode: str) -> float:
        sample = LocalOp.sampler(self, mode)
        median = statistics.median(sample() for _ in range(TRIALS))
        LocalOp.close(self)
        return median


def compiled(mode: str) -> Callable:
    """reference_adapter under torch.compile in one of COMPILE's modes."""

    # A function of its own each time: dynamo's cache and its limit of recompiles belong to the function.
    def plain(x, w_down, b_down, w_up, b_up, *, residual, activation, scale):
        return reference_adapter(x, w_down, b_down, w_up, b_up, residual=residual, activation=activation, scale=scale)

    run = torch.compile(plain, options=COMPILE[mode] or None, dynamic=False, fullgraph=True)
    if mode != "max-autotune":
        return run

    def replayed(*arguments, **settings):
        torch.compiler.cudagraph_mark_step_begin()
        return run(*arguments, **settings)

    return replayed
