"""Correct before fast: a model's logits, or its loss and gradients, against the same model in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapter_fast.testing import assert_within_budget

if TYPE_CHECKING:
    from adapter_fast.benchmarks.peers.model import LocalModel

ROWS = 8  # of a classifier's batch; a language model's first row is enough
TOKENS = 32  # of a language model's row: no token sees a later one


def randomize(parameters: Iterable[nn.Parameter], seed: int = 7) -> None:
    """Fan-in scaled random weights: at its usual initialisation an adapter that does nothing would pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            std = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def check_logits(contender: LocalModel) -> None:
    """Hold the logits of the timed call, its first rows, against the plain model in float64 on these rows."""
    actual = contender.forward()
    rows, length = (1, TOKENS) if actual.dim() == 3 else (ROWS, None)
    ids = contender.ids[:rows, :length]
    plain = contender.plain()
    with torch.inference_mode():
        exact = copy.deepcopy(plain).double()(ids).logits
        with contender.autocast():
            eager = plain(ids).logits
    actual = actual[:rows, :length] if actual.dim() == 3 else actual[:rows]
    _hold(contender, "logits", actual.flatten(), exact.flatten(), eager.flatten())


def check_gradients(contender: LocalModel) -> None:
    """Hold the loss and all gradients of the timed step, which has no dropout, against float64."""
    ids, labels = contender.ids, contender.labels
    plain = contender.plain().train()
    plain.load_state_dict(contender.model.state_dict())  # warming trained it a little
    exact_model = copy.deepcopy(plain).double()
    exact = _gradients(exact_model, exact_model, nullcontext(), ids, labels)
    eager = _gradients(plain, plain, contender.autocast(), ids, labels)
    actual = _gradients(contender.call, contender.model, contender.autocast(), ids, labels)
    if actual.keys() != exact.keys():
        raise AssertionError(f"{contender.name}: gradients of {len(actual) - 1} parameters, expected {len(exact) - 1}")
    # A single tensor's error is common to its elements, so chance moves its mean: all are judged as one vector, and the
    # loss, a single number, with them.
    scales = {name: value.abs().amax().clamp_min(1e-30) for name, value in exact.items()}

    def joined(gradients: dict[str, Tensor]) -> Tensor:
        return torch.cat(
            [(gradients[name] / scale.to(gradients[name].dtype)).flatten() for name, scale in scales.items()]
        )

    worst = max(exact, key=lambda name: float((actual[name].double() - exact[name]).abs().amax() / scales[name]))
    _hold(contender, f"loss and gradients (worst: {worst})", joined(actual), joined(exact), joined(eager))


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


def _hold(contender: LocalModel, what: str, actual: Tensor, exact: Tensor, eager: Tensor) -> None:
    case = contender.case
    name = f"{contender.name}, {case.name}: {what}"
    assert_within_budget(actual, exact, eager, terms=case.hidden + case.bottleneck, name=name)
