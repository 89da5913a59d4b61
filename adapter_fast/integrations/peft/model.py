"""BottleneckModel: puts BottleneckLayers into a model, and what PEFT asks of a method as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn

from ...config import SUB_LAYERS
from ...placement.inject import check_name
from ...placement.sites import Site, find_family, find_layers, find_sites
from .config import BottleneckConfig
from .layer import BASE_ROWS, CANNOT_MERGE, BottleneckLayer, check_one_active


class BottleneckModel(BaseTuner):
    """The tuner behind get_peft_model(model, BottleneckConfig(...)); see PEFT's BaseTuner for its methods.

    Cannot merge (ValueError): the nonlinearity is no part of a linear layer. One adapter is active at a time; the rows
    of one batch can each have their own with adapter_names=, for inference.
    """

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  the table of families is in its place

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: dict) -> BottleneckConfig:
        if peft_config.target_modules is None:
            sites = find_sites(self.model, peft_config.adapter_config())
            peft_config.target_modules = [site.name for site in sites]
            peft_config.sublayers = peft_config.layers = None
        return peft_config

    def _prepare_model(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        """Raise where a target cannot take an adapter, before the first is wrapped."""
        self._denses = _names_of_denses(model)
        within = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
        for name, module in model.named_modules():
            # What lies in a wrapper is no target, whatever the expression: BaseTuner passes over it too.
            if not name.startswith(within) and self._check_target_module_exists(peft_config, name):
                self._describe(name, module)

    def _describe(self, name: str, module: nn.Module) -> tuple[int, torch.device, torch.dtype]:
        """d of a target's output, and the device and dtype there; ValueError where the width cannot be told."""
        dense = self.model.get_submodule(self._denses.get(name, name))
        site = Site(name, "target", module, dense.get_base_layer() if isinstance(dense, BaseTunerLayer) else dense)
        return site.width, site.device, site.weight.dtype

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        width, device, dtype = self._describe(current_key, target)
        layer = target if isinstance(target, BottleneckLayer) else BottleneckLayer(target, width)
        layer.update_layer(adapter_name, peft_config, device, dtype)
        layer.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own moves the adapter to the child's weight, and a dropout has none.
        setattr(parent, child_name, new_module)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """BaseTuner's; after it the model itself refuses adapter_names, which would be ignored without a PeftModel."""
        check_name(adapter_name)
        if adapter_name == BASE_ROWS:
            raise ValueError(f"an adapter's name must not be {BASE_ROWS!r}, which stands for the base in adapter_names")
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        if _refuse_adapter_names not in model._forward_pre_hooks.values():
            model.register_forward_pre_hook(_refuse_adapter_names, with_kwargs=True)

    def set_adapter(self, adapter_name: str | list[str], *args: Any, **kwargs: Any) -> None:
        """Make one adapter the one that computes; ValueError for several, with nothing changed."""
        check_one_active(adapter_name)
        super().set_adapter(adapter_name, *args, **kwargs)

    def unload(self) -> nn.Module:
        """The base model as it was: no wrapper or hook left, and modules_to_save with their values from before."""
        for name, module in list(self.model.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):
                self.model.set_submodule(name, module.original_module)
        for key in [key for key, hook in self.model._forward_pre_hooks.items() if hook is _refuse_adapter_names]:
            del self.model._forward_pre_hooks[key]
            del self.model._forward_pre_hooks_with_kwargs[key]
        return super().unload()

    def _check_merge_allowed(self) -> None:
        raise ValueError(CANNOT_MERGE)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if not autocast_adapter_dtype:
            for layer in self._layers():
                layer.cast_to_base(adapter_name)

    def _layers(self) -> list[BottleneckLayer]:
        return [module for module in self.model.modules() if isinstance(module, BottleneckLayer)]

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT enters this around forward and generate: gives adapter_names to the layers, as LoRA does."""
        if kwargs.get("alora_offsets") is not None:
            raise ValueError("alora_offsets must be None: bottleneck adapters have no invocation tokens")
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        self._check_rows(names)
        handles = []
        try:
            repeats = max(kwargs.get("num_beams") or 1, kwargs.get("num_return_sequences") or 1)
            encoder = _encoder_of(self.model) if repeats > 1 else None
            encoding = set() if encoder is None else set(encoder.modules())
            for module in self.modules():
                if isinstance(module, (BottleneckLayer, AuxiliaryTrainingWrapper)):
                    # generate() repeats the rows behind the encoder, for the beams
                    rows = names if module in encoding else [name for name in names for _ in range(repeats)]
                    hook = partial(_pass_adapter_names, adapter_names=rows)
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _check_rows(self, names: Any) -> None:
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"adapter_names must be a list of one name a row, got {names!r}")
        if self.training:
            raise ValueError("adapter_names must be None in training mode: a mixed batch is for inference")
        known = {name for layer in self._layers() for name in layer.bottleneck_apply}
        unknown = sorted({str(name) for name in names} - known - {BASE_ROWS})
        if unknown:
            raise ValueError(f"adapter_names must be of {sorted(known)} or {BASE_ROWS!r}, got {', '.join(unknown)}")


def _names_of_denses(model: nn.Module) -> dict[str, str]:
    """The linear layer behind each place that the table of families knows: names by name."""
    family = find_family(model)
    layers = [] if family is None else find_layers(model, family)
    places = ((layer, getattr(stack, kind)) for layer, stack in layers for kind in SUB_LAYERS)
    return {f"{layer}.{place.hook}": f"{layer}.{place.dense}" for layer, place in places if place is not None}


def _encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder of an encoder-decoder; transformers 5 gives the model itself where there is none."""
    get_encoder = getattr(model, "get_encoder", None)
    encoder = get_encoder() if callable(get_encoder) else None
    return None if encoder is model else encoder


def _pass_adapter_names(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], adapter_names: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "adapter_names": adapter_names}


def _refuse_adapter_names(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if kwargs.get("adapter_names") is not None:
        raise ValueError(
            "adapter_names needs a PeftModel (get_peft_model, PeftModel.from_pretrained): it would be ignored"
        )
