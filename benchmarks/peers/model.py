"""One provider of a whole model in this process: an inference pass or a training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from adapter_fast.benchmarks.cases import DTYPES
from adapter_fast.benchmarks.contender import Unavailable
from adapter_fast.benchmarks.graphs import capture
from adapter_fast.benchmarks.models import ModelCase, make_tokens
from adapter_fast.benchmarks.peers.check import check_gradients, check_logits
from adapter_fast.common.errors import first_line
from adapter_fast.measure.clock import Sampler, host_timer, settled, synchronized_timer
from adapter_fast.measure.compiling import compiled_apart
from adapter_fast.measure.memory import peak_bytes

LEARNING_RATE = 1e-4
WARM_CALLS = 3


class LocalModel:
    """A Contender (contender.py) around a transformer of this process.

    Args:
        name, note, parameters: as they stand in the results. case: what runs; device: "cpu" or "cuda".
        model: on the device; for a step its requires_grad flags say what trains.
        plain: builds the model that the check takes for the truth, in float64 and as it is; None: `model` itself.
        compiled: run it under torch.compile, static shapes, default mode; a graph break is an error.
    """

    def __init__(
        self,
        name: str,
        case: ModelCase,
        device: str,
        model: nn.Module,
        *,
        plain: Callable[[], nn.Module] | None = None,
        parameters: int | None = None,
        note: str = "",
        compiled: bool = False,
    ) -> None:
        self.name, self.note, self.parameters = name, note, parameters
        self.case, self.device = case, device
        self.model = model.train(case.phase == "step")
        self.plain = plain or (lambda: model)
        self.call: Any = compiled_apart(model, fullgraph=True) if compiled else model
        self.ids, self.labels = make_tokens(case, device)
        self.run = self.step if case.phase == "step" else self.forward
        self._graph: Any = None
        if case.phase == "step":
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=device == "cuda")

    def autocast(self) -> AbstractContextManager:
        """The case's autocast, or nothing."""
        return torch.autocast(self.device, dtype=DTYPES[self.case.dtype]) if self.case.autocast else nullcontext()

    def forward(self) -> Tensor:
        """One inference pass → logits."""
        with torch.inference_mode(), self.autocast():
            return self.call(self.ids).logits

    def step(self) -> None:
        """One training step: forward, loss, backward, AdamW over what trains."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.call(self.ids, labels=self.labels).loss
        loss.backward()
        self.optimizer.step()

    def warm(self) -> None:
        """See Contender. Unavailable where it cannot run."""
        try:
            for _ in range(WARM_CALLS):
                self.run()
            if self.device == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # whatever a compiler, a missing kernel or a full memory raises
            raise Unavailable(f"{type(error).__name__}: {first_line(error)}") from error

    def check(self) -> None:
        """See Contender: logits of the very call that is timed; for a step the loss and every gradient."""
        (check_gradients if self.case.phase == "step" else check_logits)(self)

    def peak(self) -> int:
        """See Contender: the weights and, for a step, the optimiser's state were there before; gradients were not."""
        self.model.zero_grad(set_to_none=True)
        return peak_bytes(self.run, self.device)

    def sampler(self, mode: str) -> Sampler | None:
        """See Contender: "eager" everywhere, "graph-hot" of an inference pass on a GPU."""
        if mode == "eager":
            timer = synchronized_timer if self.device == "cuda" else host_timer
            return settled(lambda: timer(self.run))
        if mode != "graph-hot" or self.device != "cuda" or self.case.phase != "forward":
            return None
        try:
            self._graph = capture(lambda ids: ids, lambda ids: self.forward(), [self.ids])
        except Exception as error:  # an operation that a capture forbids, or a full memory
            raise Unavailable(f"no CUDA graph: {first_line(error)}") from error
        return settled(self._graph.sample)

    def close(self) -> None:
        """See Contender."""
        self.__dict__.clear()
