"""What the library remembers on a model: which adapters it has, which is active, and how to give the model back.

An adapter's name stands for all that its task tuned: the bottlenecks and, where the recipe trains them, the LayerNorms
and the head (paper, section 2); see tuned.py for these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import AdapterConfig
from .container import sites_in
from .sharded import copy_into, is_spread
from .tuned import (
    base_parameter,
    check_exchange,
    claim_parameter,
    exchange,
    forget,
    is_quantised,
    own_parameter,
    wanted_dtype,
)
from .walk import STATE, base_modules, uncompiled_name


class AdapterState(nn.Module):
    """A child of the model from the first adapter added to the last removed: it travels with copies and state dicts.

    State-dict key adapter_state._extra_state: a JSON object's bytes, {"adapters": {name: config}, "active": name}.
    """

    def __init__(self, requires_grad: dict[str, bool]) -> None:
        super().__init__()
        self.requires_grad = requires_grad  # of the base's parameters
        self.configs: dict[str, AdapterConfig] = {}
        self.active: str | None = None
        self.tuned: dict[str, list[str]] = {}  # by adapter: the base's parameters that it has of its own
        self.loading_alone: str | None = None  # inside load_state_dict without the base: the prefix of the keys

    def names(self) -> str:
        """The adapters, for messages."""
        return ", ".join(repr(name) for name in self.configs)

    def get_extra_state(self) -> Tensor:
        """The adapters' configurations and which is active, as bytes."""
        values = {"adapters": {name: config.to_dict() for name, config in self.configs.items()}, "active": self.active}
        return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Module's; accelerate's FSDP2 shards a model without values and takes each entry for a spread parameter."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if any(is_spread(value) and value.is_meta for value in destination.values()):
            destination.pop(f"{prefix}_extra_state")

    def set_extra_state(self, state: Any) -> None:
        """Nothing: loading.py has read it, before the values were."""


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
    state = model._modules.get(STATE)
    if state is None and sites_in(model):
        owners = [name for name, module in base_modules(model) if STATE in module._modules]
        where = f"its submodule {owners[0]!r}" if owners else "a model around it"
        raise ValueError(f"the adapters in this {type(model).__name__} were added to {where}: pass that module")
    return state  # type: ignore[return-value]


def require_state(model: nn.Module, name: str | None = None) -> AdapterState:
    """The model's state; ValueError where it has no adapter, or none of this name."""
    state = find_state(model)
    if state is None:
        raise ValueError(f"{type(model).__name__} has no adapters: add one with add_adapters or load_adapters")
    if name is not None and name not in state.configs:
        raise ValueError(f"no adapter named {name!r}: the model has {state.names()}")
    return state


def refuse_quantised(model: nn.Module, parameters: Iterable[str]) -> None:
    """ValueError for a parameter of the base of which an adapter cannot have its own, and which cannot be trained."""
    for name in parameters:
        value = base_parameter(model, name)
        if is_quantised(value):
            kind = f"{value.dtype} in a {type(value).__name__}" if value.dtype.is_floating_point else value.dtype
            raise ValueError(
                f"{name} is {kind}, quantised, and cannot be trained or replaced: load the base with its module left "
                f"out (llm_int8_skip_modules, modules_to_not_convert), or leave it as it is"
            )


def refuse_shared(model: nn.Module, parameters: Iterable[str]) -> None:
    """ValueError for a parameter of the base that is one with another, of which an adapter cannot have its own."""
    holders: dict[int, list[str]] = {}
    for module_name, module in base_modules(model):
        for key, value in module._parameters.items():
            name = uncompiled_name(f"{module_name}.{key}" if module_name else key)
            if value is not None and name not in holders.setdefault(id(value), []):
                holders[id(value)].append(name)
    for name in parameters:
        others = [other for other in holders.get(id(model.get_parameter(name)), []) if other != name]
        if others:
            raise ValueError(f"{name} is one with {others[0]}, and an adapter cannot have one of the two of its own")


def claim(
    model: nn.Module, state: AdapterState, adapter: str, parameters: Iterable[str], master_weights: bool = True
) -> None:
    """Give an adapter these parameters of the base as its own, with the base's values; those it has stay.

    master_weights: as in train_adapters.
    """
    tuned = state.tuned.setdefault(adapter, [])
    for name in parameters:
        dtype = wanted_dtype(base_parameter(model, name), master_weights)
        claim_parameter(model, adapter, name, dtype, active=state.active == adapter)
        if name not in tuned:
            tuned.append(name)


def give(model: nn.Module, state: AdapterState, adapter: str, values: Mapping[str, Tensor]) -> None:
    """Give an adapter that is not active its own of these parameters of the base, frozen, with values and dtypes."""
    claim(model, state, adapter, values)
    for name, value in values.items():
        own = own_parameter(model, adapter, name).requires_grad_(False)
        with torch.no_grad():
            own.data = own.data.to(value.dtype)
            copy_into(own, value)


def activate(model: nn.Module, state: AdapterState, adapter: str | None) -> None:
    """Make one adapter compute (None: the bare base), with its own LayerNorms and head in the last one's place."""
    if adapter != state.active:
        leaving, coming = state.tuned.get(state.active or "", []), state.tuned.get(adapter or "", [])
        if state.active is not None:
            check_exchange(model, state.active, leaving)
        if adapter is not None:
            check_exchange(model, adapter, coming)
        if state.active is not None:
            exchange(model, state.active, leaving, active=False)
        if adapter is not None:
            exchange(model, adapter, coming, active=True)
        state.active = adapter
    for site in sites_in(model).values():
        site.switch(adapter)


def drop(model: nn.Module, state: AdapterState, adapter: str) -> None:
    """Forget an adapter that is not active, and what it tuned."""
    forget(model, adapter, state.tuned.pop(adapter, []))
    state.configs.pop(adapter)


def tuned_values(model: nn.Module, state: AdapterState, adapter: str) -> dict[str, Tensor]:
    """The base's parameters that this adapter has of its own, by name, with its values, active or not."""
    return {name: own_parameter(model, adapter, name).detach() for name in state.tuned.get(adapter, [])}
