"""What the library remembers on a model: which adapters it has, which is active, and how to give the model back.

An adapter's name stands for all that its task tuned: the bottlenecks and, where the recipe trains them, the LayerNorms
and the head (paper, section 2). These last are the model's own parameters, so their values from before are kept here,
and each adapter's values are kept here while another adapter is active.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..config import AdapterConfig
from .container import sites_in
from .sharded import copy_into

ATTRIBUTE = "_adapter_fast"


@dataclass
class AdapterState:
    """Lives in the model's attribute _adapter_fast from the first adapter added to the last removed."""

    requires_grad: dict[str, bool]
    configs: dict[str, AdapterConfig] = field(default_factory=dict)
    active: str | None = None
    untuned: dict[str, Tensor] = field(default_factory=dict)
    tuned: dict[str, dict[str, Tensor | None]] = field(default_factory=dict)  # None: the value is in the model

    def names(self) -> str:
        """The adapters, for messages."""
        return ", ".join(repr(name) for name in self.configs)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's, DataParallel's and DistributedDataParallel's wrappers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    while True:
        if "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def refuse_wrapped(model: nn.Module, what: str) -> None:
    """ValueError for a model inside DistributedDataParallel or PEFT, which would not see what is added or trained."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(f"{what} needs a model before DistributedDataParallel, which reads once what trains")
    if any(kind.__name__ == "PeftModel" for kind in type(model).__mro__):
        raise ValueError(
            f"{what} needs a model that is no PeftModel: adapter_fast.integrations.peft has BottleneckConfig"
        )


def find_state(model: nn.Module) -> AdapterState | None:
    """The model's state, None without adapters; ValueError where they were added to another module than this."""
    state = model.__dict__.get(ATTRIBUTE)
    if state is None and sites_in(model):
        owners = [name for name, module in model.named_modules() if ATTRIBUTE in module.__dict__]
        where = f"its submodule {owners[0]!r}" if owners else "a model around it"
        raise ValueError(f"the adapters in this {type(model).__name__} were added to {where}: pass that module")
    return state


def require_state(model: nn.Module, name: str | None = None) -> AdapterState:
    """The model's state; ValueError where it has no adapter, or none of this name."""
    state = find_state(model)
    if state is None:
        raise ValueError(f"{type(model).__name__} has no adapters: add one with add_adapters or load_adapters")
    if name is not None and name not in state.configs:
        raise ValueError(f"no adapter named {name!r}: the model has {state.names()}")
    return state


def _copy_into(model: nn.Module, values: Mapping[str, Tensor | None]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                copy_into(model.get_parameter(name), value)


def _check_shapes(model: nn.Module, values: Mapping[str, Tensor | None]) -> None:
    for name, value in values.items():
        shape = model.get_parameter(name).shape
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} has shape {list(shape)} now, the adapter kept {list(value.shape)}")


def _keep_untuned(model: nn.Module, state: AdapterState, parameters: Iterable[str]) -> None:
    for name in parameters:
        if name not in state.untuned:
            state.untuned[name] = model.get_parameter(name).detach().clone()


def claim(model: nn.Module, state: AdapterState, adapter: str, parameters: Iterable[str]) -> None:
    """Note that the active adapter's training changes these parameters of the base, and keep their present values."""
    parameters = list(parameters)
    _keep_untuned(model, state, parameters)
    own = state.tuned.setdefault(adapter, {})
    for name in parameters:
        own.setdefault(name, None)


def park(model: nn.Module, state: AdapterState, adapter: str, values: Mapping[str, Tensor]) -> None:
    """Give an adapter that is not active values of the base's parameters; they come into the model with activate."""
    _keep_untuned(model, state, values)
    state.tuned[adapter] = dict(values)


def activate(model: nn.Module, state: AdapterState, adapter: str | None) -> None:
    """Make one adapter compute (None: the bare base) and bring its LayerNorms and head in for the last one's."""
    if adapter != state.active:
        leaving = state.tuned.get(state.active, {}) if state.active is not None else {}
        coming = state.tuned.get(adapter, {}) if adapter is not None else {}
        before = {name: state.untuned[name] for name in leaving}
        _check_shapes(model, before)
        _check_shapes(model, coming)
        for name in leaving:
            leaving[name] = model.get_parameter(name).detach().clone()
        _copy_into(model, before)
        _copy_into(model, coming)
        for name in coming:
            coming[name] = None
        state.active = adapter
    for site in sites_in(model).values():
        site.switch(adapter)


def tuned_values(model: nn.Module, state: AdapterState, adapter: str) -> dict[str, Tensor]:
    """The base parameters this adapter's training changed, by name, with its own values, active or not."""
    return {
        name: model.get_parameter(name).detach() if value is None else value
        for name, value in state.tuned.get(adapter, {}).items()
    }
