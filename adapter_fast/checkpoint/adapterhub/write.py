"""An adapter as files that AdapterHub's `adapters` 1.x loads."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ...common.directories import replace_directory
from ...config import AdapterConfig
from ...placement.sites import family_of, find_layers
from ...placement.state import unwrap
from ..record import Record, Saved
from ..record.collect import collect
from .config import to_bn_config
from .names import CONFIG_FILE, FILES, HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE, PARTS, WEIGHTS_FILE, WRITTEN_VERSION
from .places import adapterhub_family, adapterhub_key, hub_head_key, site_name

Model = TypeVar("Model", bound=nn.Module)


class Base(NamedTuple):
    """What their files say of the base model."""

    layers: int | None  # how many it has, needed where the adapter is not in all
    model_class: str | None  # needed for a head
    model_name: str | None = None
    label2id: dict[str, int] | None = None


def export_adapterhub(
    model: Model, directory: str | os.PathLike[str], name: str = "default", *, layer_norms: bool = True
) -> Model:
    """Write the named adapter, and the head trained with it, as AdapterHub's `adapters` 1.x does; whole or not at all.

    There model.load_adapter(directory) of a BERT, RoBERTa, XLM-R, DistilBERT, GPT-2, Llama or ViT loads it. An adapter
    saved there before is replaced. Without biases they are written as zeros. Two things are written with a warning:
    dropout, which sits behind the up-projection there, and a pooler that trained with the head, which is the base's
    there, for all of its adapters.

    Args:
        model: a model with an adapter of this name, active or not. It is not changed.
        directory: new, empty, or of a saved adapter. Missing parents are made.
        name: which adapter.
        layer_norms: their files have no place for LayerNorms trained with the adapter: True refuses such an adapter,
            False leaves them out, after which it computes something else there than here.

    Returns:
        The model itself.

    Raises:
        ValueError: no adapter of this name, trained LayerNorms, another model family, target_modules, a directory
            with other files. OSError: the files could not be written.
    """
    base = unwrap(model)
    saved = collect(base, name)
    adapterhub_family(saved.record.model_type, "export_adapterhub")
    config: Any = base.config
    layers = sum(1 for _ in find_layers(base, family_of(base)))
    about = Base(layers, type(base).__name__, config.name_or_path, config.label2id)
    replace_directory(directory, adapterhub_files(saved, about, layer_norms=layer_norms), FILES)
    return model


def adapterhub_files(saved: Saved, base: Base, *, layer_norms: bool = True) -> dict[str, bytes]:
    """The directory's files by name; errors as in export_adapterhub."""
    record = saved.record
    adapterhub_family(record.model_type, "AdapterHub's files")
    if record.layer_norms and layer_norms:
        raise ValueError(
            f"adapter {record.name!r} has {len(record.layer_norms)} LayerNorm parameters trained with it, for which "
            f"AdapterHub's files have no place: pass layer_norms=False to leave them out"
        )
    config = AdapterConfig.from_dict(record.config)
    header = {
        "model_type": record.model_type,
        "hidden_size": record.hidden_size,
        "model_name": base.model_name,
        "model_class": base.model_class,
        "version": WRITTEN_VERSION,
    }
    bn_config = to_bn_config(config, record.hidden_size, _leave_out(config, base.layers))
    files = {
        CONFIG_FILE: _json({**header, "name": record.name, "config": bn_config}),
        WEIGHTS_FILE: _pickle(_rename(saved, config)),
    }
    if record.head:
        _warn_of_shared(record)
        if base.model_class is None:
            raise ValueError(f"adapter {record.name!r} has a head: model_class must name the model's class, got None")
        head = {hub_head_key(record.model_type, key): saved.tensors[f"head.{key}"] for key in record.head}
        labels = {"label2id": base.label2id, "num_labels": None if base.label2id is None else len(base.label2id)}
        files[HEAD_CONFIG_FILE] = _json({**header, "name": None, "config": None, **labels})
        files[HEAD_WEIGHTS_FILE] = _pickle(head)
    return files


def _warn_of_shared(record: Record) -> None:
    """What trains beside the head (an untrained pooler) is the adapter's own here, and the base's there."""
    shared = [key for key in record.head if hub_head_key(record.model_type, key) != key]
    if shared:
        warnings.warn(
            f"{shared[0]} ({len(shared)} such), trained with adapter {record.name!r}, replaces the base's in "
            f"AdapterHub, for its other adapters too",
            stacklevel=4,
        )


def _leave_out(config: AdapterConfig, layers: int | None) -> list[int]:
    if config.layers is None:
        return []
    if layers is None:
        raise ValueError("the adapter is not in every layer: layers must give the model's number of layers, got None")
    if layers <= config.layers[-1]:
        raise ValueError(f"layers must be above {config.layers[-1]}, the adapter's last layer, got {layers}")
    return [layer for layer in range(layers) if layer not in config.layers]


def _rename(saved: Saved, config: AdapterConfig) -> dict[str, Tensor]:
    """The adapter's tensors under their keys."""
    record = saved.record
    layers = range(len(record.sites) // len(config.adapted)) if config.layers is None else config.layers
    places = [(kind, layer) for layer in layers for kind in config.adapted]
    sites = [site_name(record.model_type, config.placement, kind, layer) for kind, layer in places]
    if sites != record.sites:
        odd = sorted(set(sites) ^ set(record.sites)) or sites
        raise ValueError(f"adapter {record.name!r} must have the sites of a {record.model_type}: {odd[0]} is odd")
    return {
        adapterhub_key(record.model_type, kind, layer, record.name, part): _tensor(
            saved.tensors, f"adapter.{site}", part
        )
        for (kind, layer), site in zip(places, sites)
        for part in PARTS
    }


def _tensor(tensors: Mapping[str, Tensor], adapter: str, part: str) -> Tensor:
    """A weight, or a bias, zero where the adapter has none."""
    value = tensors.get(f"{adapter}.{part}")
    if value is None:
        weight = tensors[f"{adapter}.{part.removesuffix('bias')}weight"]
        value = weight.new_zeros(weight.shape[0])
    return value


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def _pickle(tensors: Mapping[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, file)
    return file.getvalue()
