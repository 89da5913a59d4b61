"""Add, switch, disable and remove adapters in a Hugging Face transformer, in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from ..adapter import FusedAdapter, ReferenceAdapter
from ..common.errors import printable
from ..config import AdapterConfig
from .container import AdapterSite, attach, attach_inlet, detach, detach_inlet, site_of, sites_in
from .loading import finish_loading, prepare_loading
from .offloading import follow_offloading
from .sharded import agree, refuse_fully_sharded
from .sites import Site, find_sites
from .state import AdapterState, activate, drop, find_state, refuse_wrapped, require_state, unwrap
from .walk import INLET, STATE, base_modules, base_parameters, remove_loading_hook

Model = TypeVar("Model", bound=nn.Module)
LONGEST_NAME = 200
_IMPLEMENTATIONS: dict[str, type[FusedAdapter] | type[ReferenceAdapter]] = {
    "fused": FusedAdapter,
    "reference": ReferenceAdapter,
}


def check_name(name: Any) -> None:
    """Raise unless name can name an adapter: a non-empty str without a dot that torch does not reserve."""
    if not isinstance(name, str):
        raise TypeError(f"an adapter's name must be a string, got {name!r}")
    if not name or "." in name:
        raise ValueError(f"an adapter's name must be non-empty and without a dot, got {name!r}")
    if not (name.isprintable() and name.strip()) or len(name) > LONGEST_NAME:  # control and zero-width characters too
        given = f"{printable(repr(name))} of length {len(name):,}"
        raise ValueError(f"an adapter's name must have at most {LONGEST_NAME} characters, all to be seen, got {given}")
    if hasattr(nn.ModuleDict(), name):
        raise ValueError(f"an adapter's name must not be one of torch.nn.ModuleDict's own attributes, got {name!r}")


def check_new_name(model: nn.Module, name: Any) -> None:
    """check_name, and ValueError where the model has an adapter of this name."""
    check_name(name)
    state = find_state(model)
    if state is not None and name in state.configs:
        raise ValueError(f"an adapter named {name!r} exists already: the model has {state.names()}")


def _weight_dtype(config: AdapterConfig, base: torch.dtype) -> torch.dtype:
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return base if base in (torch.float32, torch.float64) else torch.float32


def _build(site: Site, config: AdapterConfig) -> nn.Module:
    weight = site.weight
    adapter = _IMPLEMENTATIONS[config.implementation](
        site.width,
        config.bottleneck,
        activation=config.activation,
        scale=config.scale,
        bias=config.bias,
        init=config.init,
        init_std=config.init_std,
        dropout=config.dropout,
        memory=config.memory,
        device=site.device,
        dtype=_weight_dtype(config, weight.dtype),
    )
    return adapter.train(site.module.training)


def add_adapters(model: Model, config: AdapterConfig, name: str = "default") -> Model:
    """Put new adapters where the configuration says: by default behind both sub-layers of every layer.

    Houlsby et al. 2019, section 2.1 and figure 2; for other places see AdapterConfig's placement, sublayers, layers
    and target_modules.

    The base's parameters, state-dict keys and requires_grad flags stay as they are. The first adapter becomes the
    active one, later ones wait for set_adapter or train_adapters. Copies of the model (deepcopy, pickle, data
    parallel) run their own adapters.

    Args:
        model: a model of transformers 5 of a family in adapter_fast.placement.FAMILIES, with or without a head; with
            config.target_modules any module. One that processes share gets its adapters before fully_shard, and behind
            tensor parallelism, there on every process: the first one's initial weights go to all.
        config: shape, placement, implementation. Each adapter is made on its site's device, in config.dtype; "auto"
            is the base's dtype, but float32 over a 16-bit or quantised base. Its output has the activations' dtype.
        name: a new name, without a dot.

    Returns:
        The model itself, changed in place; unchanged where an error is raised. What trains is for train_adapters to
        say: until then a first adapter's parameters ask for gradients, and a later one's do not.

    Raises:
        TypeError, ValueError: a bad or taken name, a config that is no AdapterConfig, or a model without a known site;
            the message then lists what could be a target.
    """
    refuse_wrapped(model, "add_adapters")
    base = unwrap(model)
    if not isinstance(config, AdapterConfig):
        raise TypeError(f"config must be an AdapterConfig, got {type(config).__name__}")
    check_new_name(base, name)
    refuse_fully_sharded(base, "add_adapters")
    sites = find_sites(base, config)
    built = [(site, _build(site, config)) for site in sites]
    agree(base, [adapter for _, adapter in built])
    state = find_state(base)
    if state is None:
        flags = {parameter: value.requires_grad for parameter, value in base_parameters(base)}
        state = AdapterState(flags).train(base.training)
        setattr(base, STATE, state)
        base.register_load_state_dict_pre_hook(prepare_loading)
        base.register_load_state_dict_post_hook(finish_loading)
        base.register_forward_pre_hook(follow_offloading)
    enabled = all(site.enabled for site in sites_in(base).values())
    for site, adapter in built:
        adapter.requires_grad_(not state.configs)
        holder = site_of(site.module) or attach(site.module, first=site.behind_sum)
        if site.entry is not None:
            attach_inlet(holder, site.entry)
        holder.add(name, adapter, site.form)
        holder.switch(holder.active, enabled)
    state.configs[name] = config
    activate(base, state, name if len(state.configs) == 1 else state.active)
    return model


def set_adapter(model: Model, name: str) -> Model:
    """Make the named adapter the one that computes, with the LayerNorms and head trained or loaded with it.

    LayerNorms and head that no training of this adapter touched are the base's own. Each adapter's parameters stay the
    objects that they are and train or not as before (train_adapters sets that), so that an optimiser made for one
    adapter goes on with it when it is active again.

    Returns:
        The model itself, changed in place.

    Raises:
        ValueError: no adapter of this name; the message names those there are.
    """
    base = unwrap(model)
    check_name(name)
    activate(base, require_state(base, name), name)
    return model


@contextmanager
def disable_adapters(model: Model) -> Iterator[Model]:
    """Inside this context no adapter computes; contexts nest, and an exception restores what was before.

    LayerNorms and head tuned with the active adapter keep their tuned values: remove_adapters gives the base's back.

    Raises:
        ValueError: the model has no adapters.
    """
    base = unwrap(model)
    require_state(base)
    before = [(site, site.enabled) for site in sites_in(base).values()]
    for site, _ in before:
        site.switch(site.active, enabled=False)
    try:
        yield model
    finally:
        for site, enabled in before:
            site.switch(site.active, enabled)


def remove_adapters(model: Model, name: str | None = None) -> Model:
    """Take one adapter out, or all (None). With the last one the model is what it was before the first was added.

    Then no module, hook or attribute of ours is left, requires_grad flags are as before, and the LayerNorms and the
    head have their values from before train_adapters or load_adapters, bit for bit. Removing the active adapter of
    several leaves the bare base until set_adapter.

    Returns:
        The model itself, changed in place.

    Raises:
        ValueError: no adapters, or none of this name; the message names those there are.
    """
    base = unwrap(model)
    if name is not None:
        check_name(name)
    state = require_state(base, name)
    if name is None or state.active == name or len(state.configs) == 1:
        activate(base, state, None)
    removed = list(state.configs) if name is None else [name]
    for site in sites_in(base).values():
        for each in removed:
            site.remove(each)
    _detach_unused(base)
    for each in removed:
        drop(base, state, each)
    if not state.configs:
        for parameter, value in base_parameters(base):
            if state.requires_grad.get(parameter, value.requires_grad) != value.requires_grad:
                value.requires_grad_(state.requires_grad[parameter])
        delattr(base, STATE)
        remove_loading_hook(base, prepare_loading)
        remove_loading_hook(base, finish_loading)
        for key in [key for key, hook in base._forward_pre_hooks.items() if hook is follow_offloading]:
            del base._forward_pre_hooks[key]
    return model


def _detach_unused(base: nn.Module) -> None:
    """Take away the sites without an adapter, and the inlets that no site left reads."""
    modules = [module for _, module in base_modules(base)]
    sites = [(module, site) for module in modules if (site := site_of(module)) is not None]
    for module, site in sites:
        if not site.adapters:
            detach(module)
    read = {site._modules.get(INLET) for _, site in sites if "parallel" in site.forms.values()}
    readers = [module for module in (*modules, *(site for _, site in sites)) if INLET in module._modules]
    for module in readers:
        if module._modules[INLET] not in read:
            if isinstance(module, AdapterSite):
                delattr(module, INLET)
            else:
                detach_inlet(module)
