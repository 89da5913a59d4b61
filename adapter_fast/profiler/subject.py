"""What is profiled: a model with adapters, the same model without any hook of ours, and inputs, from one request."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import load_adapters
from ..common.errors import first_line
from ..common.locate import locate_model
from ..common.quiet import quiet_transformers
from ..config import AdapterConfig
from ..measure import presets
from ..placement import add_adapters
from ..placement.container import sites_in
from .limits import check_positions, check_room
from .request import ProfileError, Request, check_request


@dataclass(frozen=True)
class Subject:
    """The model with adapters, its copy without (frozen parameters shared), and the arguments of their forward."""

    model: nn.Module
    bare: nn.Module
    inputs: dict[str, Any]


def prepare(request: Request) -> Subject:
    """Load or build the model, copy it, add adapters to the one, and draw token ids.

    Raises:
        ProfileError: no such model or adapter, an unknown model family, more positions or memory than there are, a
            device that is not there.
    """
    check_request(request)
    model = _load(request)
    bare = _bare_copy(model)
    _adapt(model, request)
    check_positions(model, request)
    check_room(model, request)
    generator = torch.Generator().manual_seed(0)
    config: Any = model.config
    ids = torch.randint(0, config.vocab_size, (request.batch, request.seq_len), generator=generator)
    inputs: dict[str, Any] = {"input_ids": ids.to(request.device)}
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    return Subject(model, bare, inputs)


def _load(request: Request) -> nn.Module:
    dtype = getattr(torch, request.dtype)
    if request.model.startswith(presets.PREFIX):
        try:
            return presets.build(request.model.removeprefix(presets.PREFIX), request.device, dtype)
        except ValueError as error:
            raise ProfileError(str(error)) from error
    try:
        where = locate_model(request.model)
    except ValueError as error:
        raise ProfileError(str(error)) from error
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model = AutoModel.from_pretrained(where, dtype=dtype)
    except Exception as error:  # whatever a broken directory makes transformers, safetensors or json raise
        raise ProfileError(f"model {request.model!r} does not load: {first_line(error)}") from error
    return model.to(request.device).eval()


def _bare_copy(model: nn.Module) -> nn.Module:
    """The model once more, sharing every parameter and buffer: disabling adapters would leave their hooks in."""
    shared: dict[int, Tensor] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def _adapt(model: nn.Module, request: Request) -> None:
    try:
        if request.adapter is not None:
            # LayerNorms and head take no other time with other values, and a bare AutoModel has no head to fill.
            load_adapters(model, request.adapter, layer_norms=False, head=False)
        else:
            bottleneck, implementation = request.bottleneck or 64, request.implementation or "fused"
            add_adapters(model, AdapterConfig.houlsby(bottleneck=bottleneck, implementation=implementation))
            _widen(model)
    except (TypeError, ValueError, OSError) as error:
        raise ProfileError(first_line(error)) from error


def _widen(model: nn.Module) -> None:
    """Weights of fan-in scale: at the paper's initialisation an adapter that is left out would not show."""
    for site in sites_in(model).values():
        for linear in (module for module in site.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
