"""load_state_dict of a model with adapters: brings all that an adapter's name stands for, or says what is missing."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
from torch import Tensor, nn

from ..config import AdapterConfig
from .sharded import is_spread
from .state import AdapterState, activate, claim
from .tuned import own_parameter
from .walk import CHILD, STATE, TUNED, base_parameters, is_ours, uncompiled_name

EXTRA = f"{STATE}._extra_state"
_COMPUTES = ("bottleneck", "activation", "placement", "scale", "bias")  # fields that the tensors' names do not tell


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
    have of their own there, and the adapter that was active there becomes active. One that has nothing but entries of
    ours (integrations/trainer.py) leaves the base as it is, and nothing of it is then called missing.

    Raises:
        RuntimeError: an adapter of the model is there in part, or with another configuration; nothing has changed.
    """
    found = [key for key in state_dict if key.startswith(prefix) and is_ours(key.removeprefix(prefix))]
    state: AdapterState = model._modules[STATE]  # type: ignore[assignment]
    state.loading_alone = None  # a load before this one may have failed half-way
    if any(is_spread(value) and value.is_meta for value in model.parameters()):
        state_dict[prefix + EXTRA] = state.get_extra_state()  # as AdapterState left it out
    if not found:
        return
    alone = len(found) == sum(key.startswith(prefix) for key in state_dict)
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
        there = config if name not in adapters else AdapterConfig.from_dict(adapters[name])
        odd = next((key for key in _COMPUTES if getattr(there, key) != getattr(config, key)), None)
        if odd is not None:
            values = getattr(there, odd), getattr(config, odd)
            raise RuntimeError(f"adapter {name!r} was saved with {odd} {values[0]!r}, the model's has {values[1]!r}")
    for name in state.configs:
        _check_complete(name, own, found)
    saved = [
        (name, uncompiled_name(key.replace(middle, ".")), key)
        for name in state.configs
        for key in found
        if (middle := f".{TUNED}.own.{name}.") in key
    ]
    saved = [each for each in saved if each[1] not in state.tuned.get(each[0], [])]
    known = {uncompiled_name(parameter) for parameter, _ in base_parameters(model)}
    for adapter, parameter, _key in saved:
        if parameter not in known:
            raise RuntimeError(f"adapter {adapter!r} was saved with {parameter}, which the model has not")
    for adapter, parameter, key in saved:
        _claim_saved(model, state, adapter, parameter, state_dict[prefix + key])
    active = None if record is None else record.get("active")
    if record is not None and (active is None or active in state.configs):
        activate(model, state, active)
    state.loading_alone = prefix if alone else None


def finish_loading(model: nn.Module, incompatible_keys: Any) -> None:
    """The load_state_dict post-hook of the same model."""
    state: AdapterState = model._modules[STATE]  # type: ignore[assignment]
    if state.loading_alone is not None:
        prefix, missing = state.loading_alone, incompatible_keys.missing_keys
        missing[:] = [key for key in missing if not key.startswith(prefix) or f".{CHILD}." in key]
    state.loading_alone = None


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
    claim(model, state, adapter, [parameter])
    own = own_parameter(model, adapter, parameter).requires_grad_(False)
    own.data = own.data.to(value.dtype)
