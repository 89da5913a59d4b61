"""Models whose parameters are spread over processes as DTensors: FSDP2 (fully_shard) and tensor parallelism."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .walk import base_modules, base_parameters


def is_spread(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor; asked by its method, since importing the type costs half a second."""
    return hasattr(tensor, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter is a DTensor."""
    return any(is_spread(parameter) for _, parameter in base_parameters(model))


def is_fully_sharded(model: nn.Module) -> bool:
    """Whether fully_shard was called on any of its modules."""
    kinds = {type(module) for _, module in base_modules(model)}
    return any(base.__name__ == "FSDPModule" for kind in kinds for base in kind.__mro__)


def refuse_fully_sharded(model: nn.Module, what: str) -> None:
    """ValueError for a model inside fully_shard, which would not know parameters that come later."""
    if is_fully_sharded(model):
        raise ValueError(f"{what} needs a model before fully_shard, which does not see what is added later")


def agree(model: nn.Module, adapters: Iterable[nn.Module]) -> None:
    """Give new adapters the first process's weights, where the model is spread over processes.

    Each process has drawn its own, and in a tensor-parallel model they stand for one adapter.
    """
    spread = next((parameter for _, parameter in base_parameters(model) if is_spread(parameter)), None)
    if spread is None:
        return
    for group in spread.device_mesh.get_all_groups():  # type: ignore[attr-defined]
        for adapter in adapters:
            for parameter in adapter.parameters():
                torch.distributed.broadcast(parameter.detach(), group=group, group_src=0)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor: a DTensor gathered from every process, which all must ask for together; any other as it is."""
    return tensor.full_tensor() if is_spread(tensor) else tensor  # type: ignore[attr-defined]


def copy_into(parameter: Tensor, value: Tensor) -> None:
    """Copy values in place, whichever of the two is spread over processes."""
    if is_spread(parameter) and not is_spread(value):
        from torch.distributed.tensor import distribute_tensor

        spread = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]
        parameter.copy_(spread)
    else:
        parameter.copy_(value if is_spread(parameter) else whole(value))


def on_first_process(model: nn.Module, act: Callable[[], None]) -> None:
    """Act, in a sharded model on process 0 alone while the others wait; what it raises, all raise.

    Raises:
        RuntimeError: on the other processes, with the first one's message.
    """
    if not (is_sharded(model) and torch.distributed.is_available() and torch.distributed.is_initialized()):
        act()
        return
    said: list[BaseException | str | None] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            act()
        except Exception as error:  # the others wait for its word
            said[0] = f"{type(error).__name__}: {error}"
            torch.distributed.broadcast_object_list(said)
            raise
    torch.distributed.broadcast_object_list(said)
    if said[0] is not None:
        raise RuntimeError(f"process 0 failed, {said[0]}")
