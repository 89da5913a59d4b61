"""load_adapters: a saved adapter into a model."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..common.directories import read_whole
from ..config import AdapterConfig
from ..placement.container import site_of
from ..placement.inject import add_adapters, check_new_name, remove_adapters
from ..placement.masters import master_dtype
from ..placement.offloading import refuse_offloaded
from ..placement.sites import (
    Site,
    find_sites,
    layer_norm_parameters,
    model_type_of,
    task_parameters,
)
from ..placement.state import activate, find_state, give, refuse_quantised, refuse_wrapped, require_state, unwrap
from ..placement.tuned import base_parameter, is_quantised
from ..placement.walk import base_modules, base_parameters
from .adapterhub.read import is_adapterhub, read_adapterhub, refuse_other_kinds
from .record import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Record,
    check_extent,
    parse_config,
    parse_record,
    read_config,
    read_tensors,
    without_prefix,
)
from .record.base import digest_of, labels_of
from .whole_model import is_whole_model, read_whole_model

Model = TypeVar("Model", bound=nn.Module)


def load_adapters(
    model: Model,
    directory: str | os.PathLike[str],
    name: str | None = None,
    *,
    layer_norms: bool = True,
    head: bool | Sequence[str] = True,
) -> Model:
    """Add the adapter saved in a directory to the model and activate it, with the LayerNorms and head saved with it.

    In a fresh copy of the base the outputs are then those of the model it was saved from, bit for bit; weights keep
    the dtype they were saved in. The files are read and checked in full before the model is touched.

    A directory of AdapterHub's `adapters` 1.x is read too, for BERT, RoBERTa, XLM-R, DistilBERT, GPT-2, Llama and ViT:
    sequential and parallel bottleneck adapters, and static heads. Pickled tensors are unpickled as tensors alone. So is
    the directory of a whole model with adapters, as save_pretrained and Trainer write one, in safetensors.

    Warns where the base's weights are not those that the adapter was trained over, or the head's classes have other
    names here. What trains stays as it was: train_adapters goes on with the adapter.

    Args:
        model: a model of the same family, width and layers.
        directory: written by save_adapters, by AdapterHub's save_adapter, or by save_pretrained.
        name: for the adapter in this model; None takes the saved one. Of a whole model's several, the one to load.
        layer_norms, head: False leaves that part of the files out, and the model's own in place. A list of names lets
            the files' head have these modules or parameters, as train_adapters takes them.

    Returns:
        The model itself, changed in place; unchanged where an error is raised.

    Raises:
        FileNotFoundError: no such directory or file.
        ValueError: truncated or tampered files, unknown or missing keys or tensors, a shape or dtype that does not
            fit, another model family, an adapter of AdapterHub's that our op cannot compute (Compacter, gating,
            LayerNorms of its own …), a name that is taken. One line that names it.
    """
    refuse_wrapped(model, "load_adapters")
    base = unwrap(model)
    found = read_whole(directory, lambda path: _read(base, path, name, layer_norms, head))
    _put_in(base, found)
    _say_what_differs(base, found.path, found.record, found.head)
    return model


class _Read(NamedTuple):
    """What a directory holds, checked against a model."""

    path: Path
    name: str
    config: AdapterConfig
    record: Record
    sites: dict[str, Site]
    tensors: dict[str, Tensor]
    kept: dict[str, Tensor]  # LayerNorms and head, by the model's parameter names
    head: bool


def _read(base: nn.Module, path: Path, name: str | None, layer_norms: bool, head: bool | Sequence[str]) -> _Read:
    """All of the files, checked; the model is not touched."""
    tensors: dict[str, Tensor] | None = None
    where = path / WEIGHTS_FILE
    values = _read_config(path)
    if values is None:
        (record, tensors), where = read_whole_model(path, base, name)
    elif is_adapterhub(values):
        (record, tensors), where = read_adapterhub(path, values, head is not False)
    else:
        record = parse_record(path / CONFIG_FILE, values)
        if not where.is_file():
            raise FileNotFoundError(f"no saved adapter in {path}: it has no {WEIGHTS_FILE}")
    config = parse_config(path / CONFIG_FILE, record)
    if config.target_modules is not None:
        config = _with_literal_targets(base, path / CONFIG_FILE, record, config)
    name = record.name if name is None else name
    check_new_name(base, name)
    sites = _check_fits(base, path / CONFIG_FILE, record, config)
    if tensors is None:
        tensors = read_tensors(where, record, config, {key: site.width for key, site in sites.items()})
    kept: dict[str, Tensor] = {}
    if layer_norms:
        kept |= _base_values(base, tensors, "layer_norm", record.layer_norms, layer_norm_parameters(base), where)
    if head:
        kept |= _base_values(base, tensors, "head", record.head, task_parameters(base, head), where)
    refuse_offloaded(base, kept)
    return _Read(path, name, config, record, sites, tensors, kept, head is not False)


def _read_config(path: Path) -> dict[str, Any] | None:
    """adapter_config.json, None in a directory of a whole model; FileNotFoundError or ValueError in any other."""
    if (path / CONFIG_FILE).is_file():
        return read_config(path / CONFIG_FILE)
    refuse_other_kinds(path)
    if is_whole_model(path):
        return None
    raise FileNotFoundError(f"no saved adapter in {path}: it has no {CONFIG_FILE}")


def _say_what_differs(base: nn.Module, path: Path, record: Record, head: bool) -> None:
    """Warn where the adapter was trained over other weights, or its head's rows have other names."""
    digest, here = record.base.get("digest"), None if not record.base.get("digest") else digest_of(base)
    if here is not None and here != digest:
        named = record.base.get("name") or "a base of the same kind"
        warnings.warn(f"{path} was trained over {named}, whose weights differ from this model's", stacklevel=3)
    labels = labels_of(base)
    if head and record.head and record.labels and labels and labels != record.labels:
        odd = next((pair for pair in zip(record.labels, labels) if pair[0] != pair[1]), (record.labels, labels))
        warnings.warn(f"{path} has a head whose class {odd[0]!r} is named {odd[1]!r} in this model", stacklevel=3)


def _put_in(base: nn.Module, found: _Read) -> None:
    """Add the adapter with its values and activate it; where that fails the model is as before."""
    name = found.name
    before = find_state(base)
    active = None if before is None else before.active
    add_adapters(base, found.config, name)
    state = require_state(base, name)
    try:
        for key, site in found.sites.items():
            holder: Any = site_of(site.module)
            adapter = holder.adapters[name].to(getattr(torch, found.record.dtype))
            adapter.load_state_dict({part: found.tensors[f"adapter.{key}.{part}"] for part in adapter.state_dict()})
            adapter.requires_grad_(False)
        activate(base, state, None)
        give(base, state, name, found.kept)
        activate(base, state, name)
    except BaseException:
        remove_adapters(base, name)
        if before is not None:
            activate(base, before, active)
        raise


def _with_literal_targets(model: nn.Module, path: Path, record: Record, config: AdapterConfig) -> AdapterConfig:
    """The same modules by their names: a file's regular expression, which could run for ever, is not run."""
    names = {without_prefix(model, module): module for module, _ in base_modules(model)}
    missing = next((site for site in record.sites if site not in names), None)
    if missing is not None or not record.sites:
        raise ValueError(f"{path} is for the module {missing!r}, which the model has not")
    return replace(config, target_modules="|".join(re.escape(names[site]) for site in record.sites))


def _check_fits(model: nn.Module, path: Path, record: Record, config: AdapterConfig) -> dict[str, Site]:
    """The model's sites by the file's names; ValueError where family, width or layers differ."""
    model_type = model_type_of(model)
    if model_type != record.model_type:
        raise ValueError(f"{path} is for model_type {record.model_type!r}, the model has {model_type!r}")
    sites = find_sites(model, config)
    hidden_size = sites[0].width
    if hidden_size != record.hidden_size:
        raise ValueError(f"{path} is for hidden_size {record.hidden_size}, the model has {hidden_size}")
    names = {without_prefix(model, site.name): site for site in sites}
    if list(names) != record.sites:
        odd = sorted(set(names) ^ set(record.sites)) or record.sites
        raise ValueError(
            f"{path} is for {len(record.sites)} sites, the model has {len(names)}: {odd[0]} is not in both"
        )
    return names


def _base_values(
    model: nn.Module, tensors: dict[str, Tensor], part: str, stored: list[str], parameters: list[str], where: Path
) -> dict[str, Tensor]:
    """The file's LayerNorms or head by the model's parameter names; ValueError where one does not fit the model."""
    names = {without_prefix(model, parameter): parameter for parameter in parameters}
    values = {}
    for key in stored:
        stored_value = tensors[f"{part}.{key}"]
        if key not in names:
            if part == "head" and _is_unchanged(model, key, stored_value):  # a language model's, which never trained
                continue
            option, lacking = "layer_norms" if part == "layer_norm" else part, "which the model has not: "
            if part == "head" and any(without_prefix(model, found) == key for found, _ in base_parameters(model)):
                lacking = "which is the base's in the model: list the head's names in head, or "
            raise ValueError(f"{where} has {part}.{key}, {lacking}pass {option}=False to leave it out")
        refuse_quantised(model, [names[key]])
        parameter = base_parameter(model, names[key])
        master = master_dtype(parameter.dtype)
        expected = parameter.dtype if stored_value.dtype == parameter.dtype else master
        check_extent(f"{part}.{key}", stored_value, parameter.shape, expected, str(where))
        values[names[key]] = stored_value
    return values


def _is_unchanged(model: nn.Module, key: str, value: Tensor) -> bool:
    own = model.state_dict().get(key)
    return own is not None and not is_quantised(own) and own.dtype == value.dtype and torch.equal(own.cpu(), value)
