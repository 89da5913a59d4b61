"""An adapter in a directory that transformers' save_pretrained or Trainer wrote: weights of ours among the model's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from ..common.directories import read_json
from ..config import AdapterConfig
from ..placement.loading import EXTRA, read_record, saved_names
from ..placement.sites import find_sites, head_parameters, layer_norm_parameters
from ..placement.walk import CHILD, TUNED, base_parameters
from .record import FORMAT_VERSION, Record, Saved, adapter_shapes, one_dtype, without_prefix

MODEL_CONFIG = "config.json"
_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def is_whole_model(directory: Path) -> bool:
    """Whether a directory has a model's configuration and weights."""
    return any((directory / name).is_file() for name in (_ONE_FILE, _INDEX))


def read_whole_model(directory: Path, model: nn.Module, name: str | None) -> tuple[Saved, Path]:
    """The adapter as save_adapters would have written it, and the file that its weights are in.

    Args:
        directory: with model.safetensors, whole or in parts.
        model: the bare base that it is for, whose names the keys are compared with.
        name: which adapter; None takes the only one.

    Raises:
        ValueError: no adapter there, several and no name, one that lacks a tensor or is for another model.
    """
    files = _files(directory)
    keys = {key: file for file in files for key in _keys(file)}
    record = None if EXTRA not in keys else read_record(_tensors([EXTRA], keys)[EXTRA])
    where = directory / _ONE_FILE
    if record is None:
        raise ValueError(f"{where} is of a model without adapters: expected a saved adapter, or a model with one")
    chosen = _choose(record["adapters"], name, where)
    try:
        config = AdapterConfig.from_dict(record["adapters"][chosen])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: adapter {chosen!r}: {error}") from None
    sites = find_sites(model, config)
    parts = adapter_shapes(config, sites[0].width)
    adapter = {f"{site.name}.{CHILD}.adapters.{chosen}.{part}": (site, part) for site in sites for part in parts}
    split = [key.rpartition(".") for key, _ in base_parameters(model)]
    own = {f"{module}.{TUNED}.own.{chosen}.{key}": f"{module}.{key}" for module, _, key in split}
    theirs = _their_keys(model, keys, [*adapter, *own])
    missing = [key for key in adapter if key not in theirs]
    if missing:
        raise ValueError(f"{where} lacks {missing[0]} of adapter {chosen!r} ({len(missing)} missing)")
    tuned = {parameter: key for key, parameter in own.items() if key in theirs}
    lost = [key for key in keys if f".{TUNED}.own.{chosen}." in key and key not in theirs.values()]
    if lost:
        raise ValueError(f"{where} has {lost[0]}, which {type(model).__name__} has no parameter for")
    norms = [parameter for parameter in layer_norm_parameters(model) if parameter in tuned]
    known = [parameter for parameter in head_parameters(model) if parameter in tuned]
    head = list(dict.fromkeys([*known, *(parameter for parameter in tuned if parameter not in norms)]))
    values = _tensors(theirs.values(), keys)
    tensors = {
        f"adapter.{without_prefix(model, site.name)}.{part}": values[theirs[key]]
        for key, (site, part) in adapter.items()
    }
    dtype = one_dtype(chosen, tensors.values())
    for group, names in (("layer_norm", norms), ("head", head)):
        tensors |= {f"{group}.{without_prefix(model, each)}": values[theirs[tuned[each]]] for each in names}
    model_config = read_json(directory / MODEL_CONFIG) if (directory / MODEL_CONFIG).is_file() else {}
    found = Record(
        format_version=FORMAT_VERSION,
        library_version="",
        name=chosen,
        model_type=model_config.get("model_type", str(getattr(getattr(model, "config", None), "model_type", None))),
        hidden_size=sites[0].width,
        config=config.to_dict(),
        dtype=dtype,
        sites=[without_prefix(model, site.name) for site in sites],
        layer_norms=[without_prefix(model, each) for each in norms],
        head=[without_prefix(model, each) for each in head],
        sha256="",
    )
    return Saved(found, tensors), where


def _files(directory: Path) -> list[Path]:
    if (directory / _ONE_FILE).is_file():
        return [directory / _ONE_FILE]
    weights = read_json(directory / _INDEX).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(file, str) for file in weights.values()):
        raise ValueError(f"{directory / _INDEX} must have a weight_map of files")
    files = [directory / Path(file).name for file in dict.fromkeys(weights.values())]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{directory / _INDEX} names {missing[0].name}, which is not there")
    return files


def _keys(file: Path) -> list[str]:
    try:
        with safetensors.safe_open(file, framework="pt") as stored:
            return list(stored.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read as safetensors, truncated or tampered with: {error}") from None


def _tensors(names: Iterable[str], keys: dict[str, Path]) -> dict[str, Tensor]:
    by_file: dict[Path, list[str]] = {}
    for name in names:
        by_file.setdefault(keys[name], []).append(name)
    tensors: dict[str, Tensor] = {}
    for file, inside in by_file.items():
        with safetensors.safe_open(file, framework="pt") as stored:
            tensors |= {name: stored.get_tensor(name) for name in inside}
    return tensors


def _choose(adapters: dict[str, Any], name: str | None, where: Path) -> str:
    if name in adapters:
        return str(name)
    if len(adapters) != 1:
        raise ValueError(f"{where} has the adapters {', '.join(map(json.dumps, adapters))}: give the name of one")
    return next(iter(adapters))


def _their_keys(model: nn.Module, keys: Iterable[str], ours: list[str]) -> dict[str, str]:
    """{our name: the file's key}; the file's may lack the base's prefix, have it, or have been renamed."""
    wanted = {without_prefix(model, name): name for name in ours}
    renamed = {without_prefix(model, key): name for key, name in saved_names(model, ours).items()}
    found = {}
    for key in keys:
        short = without_prefix(model, key)
        name = wanted.get(short) or renamed.get(short)
        if name is not None:
            found[name] = key
    return found
