"""Parameters of the base that an adapter's task trains too, LayerNorms and head: each adapter has its own of them.

An adapter's own parameters wait in a child of the module that they belong to, and change places with the base's while
the adapter is active. So the base's are never written to, whatever reads the module reads the active ones, and an
optimiser goes on with the parameters that it was given whichever adapter is active.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import is_foreign
from .masters import HALVES, attach_masters, detach_masters, master_dtype
from .offloading import refuse_offloaded
from .sharded import copy_into, is_fully_sharded, is_spread
from .walk import TUNED, remove_loading_hook


class _Own(nn.Module):
    """One adapter's parameters of a module, by the module's names; while it is active, the base's."""


class TunedValues(nn.Module):
    """A child of a module of the base, beside its parameters: those that adapters have of their own.

    State-dict keys say whose a value is, not which adapter was active: {parameter} is the base's value,
    adapter_tuned.own.{name}.{parameter} an adapter's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ModuleDict()
        self.active: str | None = None

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Module's, with the base's and the active adapter's values under their own keys."""
        destination = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        if prefix:
            self.exchange_entries(destination, prefix.removesuffix(f"{TUNED}."))
        return destination

    def exchange_entries(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Let the values of the base and of the active adapter change places in a state dict."""
        if self.active is None:
            return
        for name in self.own[self.active]._parameters:
            ours, theirs = f"{prefix}{name}", f"{prefix}{TUNED}.own.{self.active}.{name}"
            found = {key: state_dict.pop(key) for key in (ours, theirs) if key in state_dict}
            if ours in found:
                state_dict[theirs] = found[ours]
            if theirs in found:
                state_dict[ours] = found[theirs]


def tuned_in(module: nn.Module) -> TunedValues | None:
    """What adapters tuned of a module's own parameters, None for nothing."""
    return module._modules.get(TUNED)  # type: ignore[return-value]


def _exchange_loaded_entries(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    module._modules[TUNED].exchange_entries(state_dict, prefix)  # type: ignore[union-attr, operator]


def _owner(model: nn.Module, parameter: str) -> tuple[nn.Module, str]:
    module, _, name = parameter.rpartition(".")
    return model.get_submodule(module), name


def _place_of(model: nn.Module, adapter: str, parameter: str) -> tuple[nn.Module, str, nn.Module]:
    """The module, its parameter's name, and the child with the adapter's own; ValueError where that is gone."""
    module, name = _owner(model, parameter)
    tuned = tuned_in(module)
    if tuned is None or adapter not in tuned.own or name not in tuned.own[adapter]._parameters:
        raise ValueError(f"adapter {adapter!r} has tuned {parameter}, and its module was replaced since: put it back")
    own = tuned.own[adapter]
    now, kept = module._parameters[name], own._parameters[name]
    if now is None or now.shape != kept.shape:  # type: ignore[union-attr]
        shape = None if now is None else list(now.shape)
        raise ValueError(f"{parameter} has shape {shape} now, the adapter kept {list(kept.shape)}")  # type: ignore[union-attr]
    return module, name, own


def claim_parameter(model: nn.Module, adapter: str, parameter: str, dtype: torch.dtype, active: bool) -> None:
    """Give an adapter a parameter of its own in the place of the base's, with the base's present value.

    Args:
        parameter: of the base, by its name in the model. Where the adapter has it already, it gets the dtype alone.
        dtype: of the adapter's own.
        active: whether the adapter is the active one, whose own is in the module.
    """
    module, name = _owner(model, parameter)
    tuned = tuned_in(module)
    if tuned is None:
        tuned = TunedValues().train(module.training)
        setattr(module, TUNED, tuned)
        module.register_load_state_dict_pre_hook(_exchange_loaded_entries)
    if adapter not in tuned.own:
        tuned.own[adapter] = _Own().train(module.training)
    own = tuned.own[adapter]
    if name not in own._parameters:
        base = module._parameters[name]
        value = nn.Parameter(base.detach().clone().to(dtype), requires_grad=base.requires_grad)  # type: ignore[union-attr]
        if active:
            module._parameters[name], value = value, base  # type: ignore[assignment]
            tuned.active = adapter
        own.register_parameter(name, value)
        base_dtype = base.dtype  # type: ignore[union-attr]
    else:
        now, kept = module._parameters[name], own._parameters[name]
        value, base_dtype = (now, kept.dtype) if active else (kept, now.dtype)  # type: ignore[union-attr, assignment]
        if value.dtype != dtype:
            value.data = value.data.to(dtype)
    if base_dtype in HALVES:
        attach_masters(module, [name], base_dtype)


def own_parameter(model: nn.Module, adapter: str, parameter: str) -> nn.Parameter:
    """An adapter's own parameter in the place of one of the base's."""
    module, name, own = _place_of(model, adapter, parameter)
    return module._parameters[name] if tuned_in(module).active == adapter else own._parameters[name]  # type: ignore


def base_parameter(model: nn.Module, parameter: str) -> nn.Parameter:
    """The base's parameter of this name, whichever adapter is active."""
    module, name = _owner(model, parameter)
    tuned = tuned_in(module)
    own = None if tuned is None or tuned.active is None else tuned.own[tuned.active]._parameters.get(name)
    return module._parameters[name] if own is None else own  # type: ignore[return-value]


def is_quantised(value: Tensor) -> bool:
    """Whether a tensor holds codes: by its dtype, or as another library's subclass (torchao's says the float dtype)."""
    return not value.dtype.is_floating_point or is_foreign(value)


def check_exchange(model: nn.Module, adapter: str, parameters: Iterable[str]) -> None:
    """Raise ValueError where one of an adapter's parameters cannot change places with the base's."""
    parameters = list(parameters)
    refuse_offloaded(model, parameters)
    for parameter in parameters:
        module, name, own = _place_of(model, adapter, parameter)
        now, kept = module._parameters[name], own._parameters[name]
        if is_spread(now) and now.dtype != kept.dtype and is_fully_sharded(model):  # type: ignore[arg-type, union-attr]
            raise ValueError(
                f"{parameter} is {now.dtype} and what it changes places with {kept.dtype}: "  # type: ignore[union-attr]
                f"switch and remove before fully_shard, or train_adapters(master_weights=False)"
            )


def exchange(model: nn.Module, adapter: str, parameters: Iterable[str], active: bool) -> None:
    """Let an adapter's parameters change places with the base's; active: whether they are in the module then."""
    for parameter in parameters:
        module, name, own = _place_of(model, adapter, parameter)
        now, kept = module._parameters[name], own._parameters[name]
        if is_spread(now) and now.dtype == kept.dtype:  # type: ignore[arg-type, union-attr]
            _exchange_values(now, kept)  # type: ignore[arg-type]
        else:
            module._parameters[name], own._parameters[name] = kept, now
        tuned_in(module).active = adapter if active else None  # type: ignore[union-attr]


def _exchange_values(one: Tensor, other: Tensor) -> None:
    """Of parameters spread over processes: fully_shard knows them by their places."""
    with torch.no_grad():
        kept = one.detach().clone()
        copy_into(one, other)
        copy_into(other, kept)


def forget(model: nn.Module, adapter: str, parameters: Iterable[str]) -> None:
    """Take an inactive adapter's parameters away, and with a module's last ones all that was put into it."""
    for parameter in parameters:
        module, _ = _owner(model, parameter)
        tuned = tuned_in(module)
        if tuned is None:
            continue
        if adapter in tuned.own:
            del tuned.own[adapter]
        if not tuned.own:
            delattr(module, TUNED)
            remove_loading_hook(module, _exchange_loaded_entries)
            detach_masters(module)


def wanted_dtype(base: Tensor, master_weights: bool) -> torch.dtype:
    """What an adapter's own parameter in the place of a base's has."""
    return master_dtype(base.dtype) if master_weights else base.dtype
