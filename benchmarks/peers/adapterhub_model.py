"""AdapterHub's Adapter module as an op, and a transformer with its Houlsby adapters; runs in adapterhub_worker.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adapter_fast.benchmarks.cases.whole_models import ModelCase, attention
from adapter_fast.benchmarks.peers.build import NO_DROPOUT, randomize
from adapter_fast.benchmarks.peers.model import TOKENS, LocalModel
from adapter_fast.measure import presets
from adapter_fast.measure.machine import version
from adapter_fast.reference import reference_adapter
from adapter_fast.testing import Case, assert_within_budget

ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh", "identity": "linear"}  # where transformers' names are not ours


def houlsby_config(d: int, m: int, activation: str = "gelu", scale: float = 1.0) -> Any:
    """DoubleSeqBnConfig with exactly m bottleneck units, which it takes from a ratio, rounded down."""
    from adapters import DoubleSeqBnConfig

    name = ACTIVATIONS.get(activation, activation)
    return DoubleSeqBnConfig(reduction_factor=d / (m + 0.5), non_linearity=name, scaling=scale)


def adapter_op(case: Case) -> Callable[..., Tensor]:
    """Its Adapter module as a function with the signature of reference_adapter, called as its own layers call it."""
    from adapters.methods.modeling import Adapter

    adapter = Adapter("bench", case.d, case.m, houlsby_config(case.d, case.m, case.activation, case.scale))
    down, up = adapter.adapter_down[0], adapter.adapter_up

    def op(
        x: Tensor,
        w_down: Tensor,
        b_down: Tensor,
        w_up: Tensor,
        b_up: Tensor,
        *,
        residual: Tensor | None,
        activation: str,
        scale: float,
    ) -> Tensor:
        down._parameters.update(weight=w_down, bias=b_down)
        up._parameters.update(weight=w_up, bias=b_up)
        return adapter(x, residual_input=x if residual is None else residual)[0]

    return op


def _build(case: ModelCase, device: str) -> Any:
    # Without pad_token_id: else BERT looks for padding in the ids, and waits for the GPU to do so.
    settings: dict[str, Any] = {"use_cache": False, "pad_token_id": None}
    if presets.PRESETS[case.preset][0] == "GPT2":  # its BERT makes no mask for transformers' own attention
        settings["attn_implementation"] = attention()
    if case.phase == "step":
        settings |= NO_DROPOUT
    return presets.build(case.preset, device, case.weight_dtype, **settings)


def bare_model(case: ModelCase, device: str) -> LocalModel:
    """The model of AdapterHub's transformers version that its library has not touched."""
    note = f"no adapters, transformers {version('transformers')}: what AdapterHub's time stands against"
    return LocalModel("adapterhub-bare", case, device, _build(case, device), parameters=0, note=note)


class HubModel(LocalModel):
    """A transformer of its own transformers version with its Houlsby adapters."""

    def __init__(self, case: ModelCase, device: str) -> None:
        import adapters

        model = _build(case, device)
        adapters.init(model)
        model.add_adapter("bench", config=houlsby_config(case.hidden, case.bottleneck))
        model.train_adapter("bench")
        model.to(device, case.weight_dtype)
        own = adapters_in(model)
        randomize(parameter for adapter in own for parameter in adapter.parameters())
        note = f"adapters {version('adapters')} on transformers {version('transformers')}, double_seq_bn with gelu"
        if case.phase == "step":
            norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
            for norm in norms:
                norm.requires_grad_(True)
            note += "; LayerNorms train too, as ours do, which by itself it leaves frozen"
        count = sum(parameter.numel() for adapter in own for parameter in adapter.parameters())
        super().__init__("adapterhub", case, device, model, parameters=count, note=note)

    def check(self) -> None:
        """Two adapters a layer, each within the budget of its own input and weights in float64."""
        calls: list[tuple[Any, Tensor, Tensor, Tensor]] = []

        def keep(module: nn.Module, args: tuple, kwargs: dict, output: tuple) -> None:
            calls.append((module, args[0], kwargs["residual_input"], output[0]))

        hooks = [adapter.register_forward_hook(keep, with_kwargs=True) for adapter in adapters_in(self.model)]
        training = self.model.training
        with torch.no_grad(), self.autocast():
            self.model.eval()(self.ids[:1, :TOKENS])
        self.model.train(training)
        for hook in hooks:
            hook.remove()
        if len(calls) != 2 * self.case.layers:
            raise AssertionError(f"adapterhub, {self.case.name}: {len(calls)} adapters ran, expected two a layer")
        for number, (module, x, residual, y) in enumerate(calls):
            down, up = module.adapter_down[0], module.adapter_up
            weights = [weight.detach() for weight in (down.weight, down.bias, up.weight, up.bias)]
            exact = reference_adapter(x.double(), *(weight.double() for weight in weights), residual=residual.double())
            with self.autocast():
                eager = reference_adapter(x, *weights, residual=residual)
            name = f"adapterhub, {self.case.name}: adapter {number}"
            assert_within_budget(y, exact, eager, terms=self.case.hidden + self.case.bottleneck, name=name)


def adapters_in(model: nn.Module) -> list[nn.Module]:
    """Its Adapter modules, in the model's order."""
    from adapters.methods.modeling import Adapter

    return [module for module in model.modules() if isinstance(module, Adapter)]
