"""accelerate's offloading of a model whose adapters have LayerNorms or a head of their own.

accelerate takes the weights from state_dict, where the base's keys have the base's values, and fills each module's
places by these names before the module runs. A place that an adapter's own parameter is in gets that one's values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .walk import STATE, TUNED


class _Own(Mapping[str, Tensor]):
    """accelerate's weights of one module, with an adapter's own in the places of the base's."""

    def __init__(self, weights: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self.weights, self.names = weights, names

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[self.names.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def follow_offloading(model: nn.Module, args: tuple[Any, ...]) -> None:
    """The forward pre-hook of a model that has adapters with parameters of their own."""
    if torch.compiler.is_compiling():
        return
    state: Any = model._modules[STATE]
    names = state.tuned.get(state.active)
    if not names or not ("_hf_hook" in model.__dict__ or "_hf_hook" in _owner(model, names[0]).__dict__):
        return
    for parameter in names:
        owner = _owner(model, parameter)
        for hook in _hooks(owner):
            if hook.weights_map is not None and not isinstance(hook.weights_map, _Own):
                own = owner._modules[TUNED].own[state.active]._parameters  # type: ignore[union-attr, index]
                hook.weights_map = _Own(hook.weights_map, {key: f"{TUNED}.own.{state.active}.{key}" for key in own})


def is_offloaded(module: nn.Module, name: str) -> bool:
    """Whether accelerate fills the place of a module's parameter when the module runs."""
    value = module._parameters.get(name)
    return value is not None and value.is_meta and any(hook.weights_map is not None for hook in _hooks(module))


def refuse_offloaded(model: nn.Module, parameters: Iterable[str]) -> None:
    """ValueError for a parameter that is offloaded: it cannot change places, nor be copied."""
    for parameter in parameters:
        if is_offloaded(_owner(model, parameter), parameter.rpartition(".")[2]):
            raise ValueError(
                f"{parameter} is offloaded by accelerate, which fills its place by name: train, load and switch before "
                f"offloading, or leave it out (layer_norms=False, head=False)"
            )


def _owner(model: nn.Module, parameter: str) -> nn.Module:
    return model.get_submodule(parameter.rpartition(".")[0])


def _hooks(module: nn.Module) -> list[Any]:
    """accelerate's hooks on a module that move weights."""
    hook = module.__dict__.get("_hf_hook")
    return [each for each in getattr(hook, "hooks", [hook]) if hasattr(each, "weights_map")]
