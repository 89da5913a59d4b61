"""One provider of a whole model in this process: an inference pass or a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from adapter_fast.benchmarks.cases import DTYPES
from adapter_fast.benchmarks.cases.whole_models import ModelCase, make_tokens
from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.peers.graphs import capture
from adapter_fast.common.errors import first_line
from adapter_fast.measure.clock import Sampler, host_timer, settled, synchronized_timer
from adapter_fast.measure.compiling import compiled_apart
from adapter_fast.measure.memory import peak_bytes
from adapter_fast.testing import assert_within_budget

LEARNING_RATE = 1e-4
WARM_CALLS = 3
ROWS = 8  # that are checked of a classifier's batch; a language model's first row is enough
TOKENS = 32  # of a language model's row: no token sees a later one


class LocalModel:
    """A Contender around a transformer of this process.

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
        """Run it a few times; Unavailable where it cannot run."""
        try:
            for _ in range(WARM_CALLS):
                self.run()
            if self.device == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # whatever a compiler, a missing kernel or a full memory raises
            raise Unavailable(f"{type(error).__name__}: {first_line(error)}") from error

    def check(self) -> None:
        """Hold the logits of the very call that is timed against float64; for a step the loss and every gradient."""
        (check_gradients if self.case.phase == "step" else check_logits)(self)

    def peak(self) -> int:
        """Peak bytes of one call. Weights and, for a step, the optimiser's state were there before; gradients not."""
        self.model.zero_grad(set_to_none=True)
        return peak_bytes(self.run, self.device)

    def sampler(self, mode: str) -> Sampler | None:
        """Times the mode "eager" everywhere, "graph-hot" of an inference pass on a GPU; None for another."""
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
        """Let go of the model and its graph."""
        self.__dict__.clear()


def check_logits(one: LocalModel) -> None:
    """Hold the logits of the timed call, its first rows, against the plain model in float64 on these rows."""
    actual = one.forward()
    rows, length = (1, TOKENS) if actual.dim() == 3 else (ROWS, None)
    ids = one.ids[:rows, :length]
    plain = one.plain()
    with torch.inference_mode():
        exact = copy.deepcopy(plain).double()(ids).logits
        with one.autocast():
            eager = plain(ids).logits
    actual = actual[:rows, :length] if actual.dim() == 3 else actual[:rows]
    _hold(one, "logits", actual.flatten(), exact.flatten(), eager.flatten())


def check_gradients(one: LocalModel) -> None:
    """Hold the loss and all gradients of the timed step, which has no dropout, against float64."""
    ids, labels = one.ids, one.labels
    plain = one.plain().train()
    plain.load_state_dict(one.model.state_dict())  # warming trained it a little
    exact_model = copy.deepcopy(plain).double()
    exact = _gradients(exact_model, exact_model, nullcontext(), ids, labels)
    eager = _gradients(plain, plain, one.autocast(), ids, labels)
    actual = _gradients(one.call, one.model, one.autocast(), ids, labels)
    if actual.keys() != exact.keys():
        raise AssertionError(f"{one.name}: gradients of {len(actual) - 1} parameters, expected {len(exact) - 1}")
    # A single tensor's error is common to its elements, so chance moves its mean: all are judged as one vector, and the
    # loss, a single number, with them.
    scales = {name: value.abs().amax().clamp_min(1e-30) for name, value in exact.items()}

    def joined(gradients: dict[str, Tensor]) -> Tensor:
        return torch.cat(
            [(gradients[name] / scale.to(gradients[name].dtype)).flatten() for name, scale in scales.items()]
        )

    worst = max(exact, key=lambda name: float((actual[name].double() - exact[name]).abs().amax() / scales[name]))
    _hold(one, f"loss and gradients (worst: {worst})", joined(actual), joined(exact), joined(eager))


def _gradients(
    call: Callable[..., Any], model: nn.Module, autocast: AbstractContextManager, ids: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """The loss [1] and the gradient of every parameter that trains, by name."""
    model.zero_grad(set_to_none=True)
    with autocast:
        loss = call(ids, labels=labels).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return {"loss": loss.detach().reshape(1), **found}


def _hold(one: LocalModel, what: str, actual: Tensor, exact: Tensor, eager: Tensor) -> None:
    case = one.case
    name = f"{one.name}, {case.name}: {what}"
    assert_within_budget(actual, exact, eager, terms=case.hidden + case.bottleneck, name=name)
