"""load_state_dict of a model with adapters: brings all that an adapter's name stands for, or says what is missing."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
from torch import Tensor, nn

from .state import AdapterState, activate, claim
from .tuned import own_parameter
from .walk import CHILD, STATE, TUNED, base_parameters, is_ours

EXTRA = f"{STATE}._extra_state"


def read_record(value: Any) -> dict[str, Any] | None:
    """What AdapterState.get_extra_state wrote; None for anything else."""
    try:
        record = json.loads(bytes(value.tolist()))
        return record if isinstance(record["adapters"], dict) else None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def saved_names(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Names as transformers' save_pretrained writes them, {theirs: ours}: of some families it renames modules."""
    module = sys.modules.get("transformers.core_model_loading")
    if module is None or not hasattr(model, "save_pretrained"):
        return {}
    revert = module.revert_weight_conversion
    return {next(iter(revert(model, {name: torch.empty(0)}))): name for name in names}


def prepare_loading(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """The load_state_dict pre-hook of the model that has the adapters.

    A state dict without an entry of ours is the base's. In any other, adapters get the LayerNorms and head that they
    have of their own there, and the adapter that was active there becomes active.

    Raises:
        RuntimeError: an adapter of the model is there in part, or with another configuration; nothing has changed.
    """
    found = [key for key in state_dict if key.startswith(prefix) and is_ours(key.removeprefix(prefix))]
    if not found:
        return
    state: AdapterState = model._modules[STATE]  # type: ignore[assignment]
    own = [name for name, _ in model.named_parameters() if is_ours(name)]
    if not prefix and not set(own) <= set(found):
        names = saved_names(model, [*own, *_possible(model, state)])
        for key in [key for key in found if key in names]:
            state_dict[names[key]] = state_dict.pop(key)
        found = [names.get(key, key) for key in found]
    found = [key.removeprefix(prefix) for key in found]
    record = read_record(state_dict.get(prefix + EXTRA))
    adapters = {} if record is None else record["adapters"]
    for name, config in state.configs.items():
        if name in adapters and adapters[name] != config.to_dict():
            odd = next(key for key, value in config.to_dict().items() if adapters[name].get(key) != value)
            there, here = adapters[name].get(odd), config.to_dict()[odd]
            raise RuntimeError(f"adapter {name!r} was saved with {odd} {there!r}, the model's has {here!r}")
    for name in state.configs:
        _check_complete(name, own, found)
    for name in state.configs:
        for key in found:
            middle = f".{TUNED}.own.{name}."
            if middle in key and key.replace(middle, ".") not in state.tuned.get(name, []):
                _claim_saved(model, state, name, key.replace(middle, "."), state_dict[prefix + key])
    active = None if record is None else record.get("active")
    if record is not None and (active is None or active in state.configs):
        activate(model, state, active)


def _possible(model: nn.Module, state: AdapterState) -> list[str]:
    """The names that any adapter's own LayerNorms and head could have in this model."""
    names = [name.rpartition(".") for name, _ in base_parameters(model)]
    return [f"{module}.{TUNED}.own.{adapter}.{key}" for adapter in state.configs for module, _, key in names]


def _check_complete(adapter: str, own: list[str], found: list[str]) -> None:
    of_adapter = re.compile(rf"(?:.*\.)?(?:{CHILD}\.adapters|{TUNED}\.own)\.{re.escape(adapter)}\..*")
    there = {key for key in found if of_adapter.fullmatch(key)}
    missing = [name for name in own if of_adapter.fullmatch(name) and name not in there]
    if there and missing:
        raise RuntimeError(
            f"the state dict has {len(there)} tensors of adapter {adapter!r} and lacks {missing[0]} "
            f"({len(missing)} missing): expected all of them, or none"
        )


def _claim_saved(model: nn.Module, state: AdapterState, adapter: str, parameter: str, value: Tensor) -> None:
    try:
        model.get_parameter(parameter)
    except AttributeError:
        raise RuntimeError(f"adapter {adapter!r} was saved with {parameter}, which the model has not") from None
    claim(model, state, adapter, [parameter])
    own = own_parameter(model, adapter, parameter).requires_grad_(False)
    own.data = own.data.to(value.dtype)
