"""The modes in which a model's forward is called and timed: eager, compiled, captured in a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..common.errors import first_line
from ..measure.compiling import compiled_apart
from .chrome_trace import ON_DEVICE, record, slices
from .request import ProfileError

WARM_UP = 5
Call = Callable[[], Any]  # one forward; the result's first entry is the output tensor


@dataclass(frozen=True)
class Work:
    """What one forward does: on a GPU its launches and their microseconds there, on a CPU its ATen operations."""

    launches: int | None
    kernel_us: float | None


def eager(model: nn.Module, inputs: dict[str, Any]) -> Call:
    """One forward of the model; call it without gradients."""
    return lambda: model(**inputs)


def compiled(model: nn.Module, inputs: dict[str, Any]) -> tuple[Call, float]:
    """The forward under torch.compile with static shapes, and the seconds that its first call took.

    Raises:
        ProfileError: the compiler fails.
    """

    call = compiled_apart(lambda: model(**inputs))
    start = time.perf_counter()
    try:
        call()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProfileError(f"--compile: this model does not compile here: {first_line(error)}") from error
    return call, time.perf_counter() - start


def captured(call: Call) -> Call:
    """A CUDA graph of the call, whose inputs stay where they are; calling it replays the graph.

    Raises:
        ProfileError: the call cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = call()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProfileError(f"--cuda-graph: this forward cannot be captured: {first_line(error)}") from error

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay


def check_same(calls: dict[str, Call], expected: dict[str, Call]) -> None:
    """Raise ProfileError unless each call computes what its eager model does, and not what another's does."""
    truth = {name: call()[0].float() for name, call in expected.items()}
    for name, call in calls.items():
        output = call()[0].float()
        errors = {other: (output - value).abs().mean().item() for other, value in truth.items()}
        # Half: where the adapters change less than rounding does, both errors are alike.
        if any(error < errors[name] / 2 for error in errors.values()):
            raise ProfileError(f"the compiled or captured {name} model does not compute what it does in eager mode")


def work_of(call: Call, device: str, is_compiled: bool) -> Work:
    """What one call does. A model compiled for the CPU runs loops of its own that nobody counts: None."""
    if device == "cuda":
        record(call, device)  # the first one also starts the profiler's own machinery
        events = slices(record(call, device), *ON_DEVICE)
        return Work(len(events), sum(event["dur"] for event in events))
    if is_compiled:
        return Work(None, None)
    with _Operations() as operations:
        call()
    return Work(operations.count, None)


class _Operations(TorchDispatchMode):
    """Counts the operations that compute: views and allocations are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += not (func.is_view or name == "_unsafe_view" or "empty" in name)
        return func(*args, **(kwargs or {}))
