"""A directory that AdapterHub's `adapters` 1.x wrote, read and checked in full, as this library's own record."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...common.directories import read_json
from ...common.errors import first_line, printable
from ...config import AdapterConfig
from ..record import (
    FORMAT_VERSION,
    Record,
    Saved,
    adapter_shapes,
    check_extent,
    check_keys,
    one_dtype,
    read_safetensors,
)
from .config import from_bn_config
from .names import (
    CONFIG_FILE,
    HEAD_CONFIG_FILE,
    HEAD_WEIGHTS_FILE,
    LOCATIONS,
    OTHER_KINDS,
    PARTS,
    SAFE_HEAD_WEIGHTS_FILE,
    SAFE_WEIGHTS_FILE,
    VERSION,
    WEIGHTS_FILE,
)
from .places import adapterhub_family, adapterhub_key, site_name

_WIDEST = 2**24  # of the op


class _Place(NamedTuple):
    """What a tensor's key says."""

    layer: int
    sub_layer: str
    part: str  # ours


def is_adapterhub(values: Mapping[str, Any]) -> bool:
    """Whether this adapter_config.json is theirs, of any version."""
    return "format_version" not in values and "version" in values


def refuse_other_kinds(directory: Path) -> None:
    """Raise ValueError where the directory holds another thing of AdapterHub's than an adapter."""
    for file in OTHER_KINDS:
        if (directory / file).is_file():
            raise ValueError(f"{directory / file} belongs to no single bottleneck adapter: those alone are read")


def read_adapterhub(directory: Path, values: Mapping[str, Any], head: bool) -> tuple[Saved, Path]:
    """The adapter, and with head its static head where there is one, and the file of the adapter's weights.

    Args:
        directory: holds adapter_config.json and adapter.safetensors or pytorch_adapter.bin.
        values: what is in adapter_config.json.

    Raises:
        FileNotFoundError: no weights file. ValueError: what a file has that it must not, or lacks.
    """
    path = directory / CONFIG_FILE
    refuse_other_kinds(directory)
    model_type = _check_header(path, values)
    name, hidden_size, bn_config = values.get("name"), values.get("hidden_size"), values.get("config")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: name must be a string, it is {name!r}")
    if type(hidden_size) is not int or not 0 < hidden_size < _WIDEST:
        raise ValueError(f"{path}: hidden_size must be a whole number from 1 to {_WIDEST - 1}, it is {hidden_size!r}")
    if not isinstance(bn_config, dict):
        raise ValueError(f"{path}: config must be an object, it is {bn_config!r}")
    weights = _weights_file(directory, SAFE_WEIGHTS_FILE, WEIGHTS_FILE)
    if weights is None:
        raise FileNotFoundError(f"no saved adapter in {directory}: it has no {WEIGHTS_FILE} or {SAFE_WEIGHTS_FILE}")
    config = from_bn_config(bn_config, hidden_size, path)
    places = _places(_load(weights), model_type, name, weights)
    layers = _layers(places.keys(), bn_config.get("leave_out", []), weights)
    dtype = one_dtype(name, places.values())
    config = replace(config, dtype=dtype, layers=layers if bn_config.get("leave_out") else None)
    record = Record(
        format_version=FORMAT_VERSION,
        library_version=values["version"],
        name=name,
        model_type=model_type,
        hidden_size=hidden_size,
        config=config.to_dict(),
        dtype=dtype,
        sites=[],
        layer_norms=[],
        head=[],
        sha256="",
    )
    tensors, sites = _rename(places, record, config, layers, weights)
    head_tensors = _read_head(directory, model_type) if head else {}
    tensors |= {f"head.{key}": value for key, value in head_tensors.items()}
    return Saved(replace(record, sites=sites, head=list(head_tensors)), tensors), weights


def _check_header(path: Path, values: Mapping[str, Any]) -> str:
    """The model_type, after the version."""
    version = values.get("version")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise ValueError(f"{path}: version must be adapters.1.x, it is {version!r}")
    model_type = values.get("model_type")
    adapterhub_family(model_type, path)
    return str(model_type)


def _weights_file(directory: Path, *names: str) -> Path | None:
    return next((directory / name for name in names if (directory / name).is_file()), None)


def _load(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or pickle file; of a pickle nothing but tensors is made, and nothing runs."""
    blob = path.read_bytes()
    if path.suffix == ".safetensors":
        return read_safetensors(path, blob)
    _check_zip(path, blob)
    try:
        tensors = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises a dozen types, and a refused one UnpicklingError
        # Torch's own words on a refused pickle are how to load it all the same.
        reason = "it holds more than tensors" if isinstance(error, UnpicklingError) else first_line(error)
        raise ValueError(f"{path} cannot be read as tensors alone, truncated or unsafe: {reason[:200]}") from None
    if not isinstance(tensors, dict) or not all(isinstance(key, str) for key in tensors):
        raise ValueError(f"{path} must hold tensors by name, it holds {type(tensors).__name__}")
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ValueError(f"{path} must hold dense tensors, {key} is {type(value).__name__}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # an expanded one: a memory bomb
            raise ValueError(f"{path} must hold dense tensors, {key} of {list(value.shape)} has fewer bytes stored")
    return tensors


def _check_zip(path: Path, blob: bytes) -> None:
    """torch.load does not look at the checksums that torch.save writes: a changed byte would be another weight."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as members:
            packed = [each for each in members.infolist() if each.compress_type != zipfile.ZIP_STORED]
            damaged = packed[0].filename if packed else members.testzip()
    except Exception as error:  # zipfile raises half a dozen types over damage, NotImplementedError among them
        raise ValueError(
            f"{path} cannot be read as tensors alone, truncated or unsafe: it is no whole zip of torch.save, "
            f"{first_line(error)[:200]}"
        ) from None
    if damaged is not None:
        why = "is packed, as torch.save never does" if packed else "has another checksum than the file names"
        raise ValueError(f"{path} cannot be read as tensors alone, truncated or unsafe: {printable(damaged)} {why}")


def _places(tensors: Mapping[str, Tensor], model_type: str, name: str, where: Path) -> dict[_Place, Tensor]:
    """The tensors by what their keys say; ValueError on a key that is not of this adapter."""
    family = adapterhub_family(model_type, where)
    parts = {theirs: ours for ours, theirs in PARTS.items()}
    patterns = {
        kind: re.compile(
            rf"(?:{family.prefix}\.)?"
            + re.escape(getattr(family, kind)).replace(r"\{\}", r"(0|[1-9]\d{0,5})")
            + rf"\.adapters\.{re.escape(name)}\.({'|'.join(map(re.escape, parts))})"
        )
        for kind in LOCATIONS
    }
    places = {}
    for key, value in tensors.items():
        found = [(kind, match) for kind, pattern in patterns.items() if (match := pattern.fullmatch(key))]
        if not found:
            raise ValueError(f"{where} has a tensor that is none of adapter {name!r} in a {model_type}, {key}")
        kind, match = found[0]
        place = _Place(int(match[1]), kind, parts[match[2]])
        if place in places:
            raise ValueError(f"{where} has the tensor {key} twice, with and without {family.prefix}.")
        places[place] = value
    return places


def _layers(places: Collection[_Place], leave_out: Collection[int], where: Path) -> tuple[int, ...]:
    """The layers that have adapters: all up to the last but those left out."""
    layers = sorted({place.layer for place in places})
    if not layers:
        raise ValueError(f"{where} holds no adapter")
    left_in = next((layer for layer in layers if layer in leave_out), None)
    if left_in is not None:
        raise ValueError(f"{where} has an adapter in layer {left_in}, which leave_out names")
    missing = next((layer for layer in range(layers[-1]) if layer not in layers and layer not in leave_out), None)
    if missing is not None:
        raise ValueError(f"{where} lacks the adapter of layer {missing}, which leave_out does not name")
    return tuple(layers)


def _rename(
    places: Mapping[_Place, Tensor], record: Record, config: AdapterConfig, layers: tuple[int, ...], where: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our keys, complete and of the right shapes, and the sites in the order of a model's."""

    def theirs(place: _Place) -> str:
        return adapterhub_key(record.model_type, place.sub_layer, place.layer, record.name, place.part)

    tensors: dict[str, Tensor] = {}
    sites = []
    shapes = adapter_shapes(config, record.hidden_size)
    expected = {_Place(layer, kind, part) for layer in layers for kind in config.adapted for part in shapes}
    check_keys(where, set(map(theirs, expected)), map(theirs, places), CONFIG_FILE)
    for layer in layers:
        for kind in config.adapted:
            sites.append(site_name(record.model_type, config.placement, kind, layer))
            for part, shape in shapes.items():
                place = _Place(layer, kind, part)
                check_extent(theirs(place), places[place], shape, record.dtype, str(where))
                tensors[f"adapter.{sites[-1]}.{part}"] = places[place]
    return tensors, sites


def _read_head(directory: Path, model_type: str) -> dict[str, Tensor]:
    """The static head's parameters by name, none where none was saved."""
    weights = _weights_file(directory, SAFE_HEAD_WEIGHTS_FILE, HEAD_WEIGHTS_FILE)
    if weights is None:
        return {}
    path = directory / HEAD_CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no head that can be read in {directory}: it has no {HEAD_CONFIG_FILE}")
    values = read_json(path)
    found = _check_header(path, values)
    if found != model_type:
        raise ValueError(f"{path} is for model_type {found!r}, {CONFIG_FILE} for {model_type!r}")
    if values.get("config") is not None:
        kind = values["config"].get("head_type") if isinstance(values["config"], dict) else values["config"]
        raise ValueError(
            f"{path} is of a flexible head, {kind!r} of {values.get('model_class')!r}: those of transformers alone "
            f"are read, pass head=False to leave it out"
        )
    prefix = f"{adapterhub_family(model_type, path).prefix}."  # of what trained inside the base: an untrained pooler
    return {key.removeprefix(prefix): value for key, value in _load(weights).items()}
