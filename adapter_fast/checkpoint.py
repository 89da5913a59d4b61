"""Save and load one adapter as a directory of JSON and safetensors: whole or not at all, checked before use, no pickle.

    adapter_config.json   format version, the AdapterConfig, what it was made for, what is stored, the weights' sha256
    adapter.safetensors   adapter.{site}.{down|up}.{weight|bias}, layer_norm.{parameter}, head.{parameter}

Names inside are the base model's own without the head model's prefix ("bert."), so that an adapter tuned in
BertForSequenceClassification loads into BertModel too (with head=False).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .config import WEIGHT_DTYPES, AdapterConfig
from .placement.container import sites_in
from .placement.inject import add_adapters, check_name, check_new_name, remove_adapters
from .placement.sites import Site, find_sites, head_parameters, layer_norm_parameters, model_type_of
from .placement.state import activate, find_state, park, require_state, tuned_values, unwrap

Model = TypeVar("Model", bound=nn.Module)

FORMAT_VERSION = 1
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"


@dataclass(frozen=True)
class _Record:
    """adapter_config.json, field by field."""

    format_version: int
    library_version: str
    name: str
    model_type: str
    hidden_size: int
    config: dict[str, Any]
    dtype: str  # of the adapter's own weights
    sites: list[str]
    layer_norms: list[str]
    head: list[str]
    sha256: str  # of adapter.safetensors


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _short(model: nn.Module, name: str) -> str:
    return name.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.")


def _check_extent(
    name: str, tensor: Tensor, shape: torch.Size | tuple[int, ...], dtype: torch.dtype | str, where: str
) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, {where} has {list(tensor.shape)}")
    expected = dtype if isinstance(dtype, str) else _dtype_name(dtype)
    if _dtype_name(tensor.dtype) != expected:
        raise ValueError(f"{name} must be {expected}, {where} has {_dtype_name(tensor.dtype)}")


# Saving


def _collect(model: nn.Module, name: str) -> tuple[_Record, bytes]:
    """The record and the bytes of the weights file; nothing is written."""
    from . import __version__

    state = require_state(model, name)
    config = state.configs[name]
    sites = find_sites(model, config)
    holders = sites_in(model)
    tensors: dict[str, Tensor] = {}
    for site in sites:
        for key, value in holders[site.name].adapters[name].state_dict().items():
            tensors[f"adapter.{_short(model, site.name)}.{key}"] = value
    dtypes = sorted({_dtype_name(value.dtype) for value in tensors.values()})
    if len(dtypes) > 1:
        raise ValueError(f"adapter {name!r} must have weights of one dtype to be saved, it has {', '.join(dtypes)}")
    tuned = tuned_values(model, state, name)
    norms = [parameter for parameter in layer_norm_parameters(model) if parameter in tuned]
    head = [parameter for parameter in head_parameters(model) if parameter in tuned]
    tensors.update({f"layer_norm.{_short(model, parameter)}": tuned[parameter] for parameter in norms})
    tensors.update({f"head.{_short(model, parameter)}": tuned[parameter] for parameter in head})
    for key, value in tensors.items():
        if value.is_meta:
            raise ValueError(f"{key} is on the meta device and has no values to save")
    blob = safetensors.torch.save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
    record = _Record(
        format_version=FORMAT_VERSION,
        library_version=__version__,
        name=name,
        model_type=str(model_type_of(model)),
        hidden_size=sites[0].width,
        config=config.to_dict(),
        dtype=dtypes[0],
        sites=[_short(model, site.name) for site in sites],
        layer_norms=[_short(model, parameter) for parameter in norms],
        head=[_short(model, parameter) for parameter in head],
        sha256=hashlib.sha256(blob).hexdigest(),
    )
    return record, blob


def _previous(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.previous")


def _resolve(directory: str | os.PathLike[str]) -> Path:
    """The absolute path, and the old adapter back in its place where a save was killed between its two renames."""
    path = Path(os.path.realpath(directory))
    if not path.exists() and _previous(path).is_dir():
        os.rename(_previous(path), path)
    return path


def _check_replaceable(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} must be a directory or new, it is a file")
    if directory.is_dir():
        foreign = sorted(set(os.listdir(directory)) - {CONFIG_FILE, WEIGHTS_FILE})
        if foreign:
            raise ValueError(f"{directory} must be new, empty or a saved adapter, it holds {', '.join(foreign[:5])}")


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace_directory(new: Path, directory: Path) -> None:
    """Put new in directory's place; where that fails the old one is back."""
    previous = _previous(directory)
    if not directory.exists():
        os.rename(new, directory)
        return
    if previous.exists():
        shutil.rmtree(previous)
    os.rename(directory, previous)
    try:
        os.rename(new, directory)
    except BaseException:
        os.rename(previous, directory)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def save_adapters(model: Model, directory: str | os.PathLike[str], name: str = "default") -> Model:
    """Write the named adapter, and the LayerNorms and head trained with it, to a directory: whole or not at all.

    The files are written beside the directory and renamed into place. An adapter saved there before is replaced, and
    stays as it was where anything fails; a directory that holds any other file is refused.

    Args:
        model: a model with an adapter of this name, active or not. It is not changed.
        directory: new, empty, or of a saved adapter. Missing parents are made.
        name: which adapter.

    Returns:
        The model itself.

    Raises:
        ValueError: no adapter of this name, a directory with other files, weights on the meta device.
        OSError: the files could not be written.
    """
    base = unwrap(model)
    check_name(name)
    record, blob = _collect(base, name)
    target = _resolve(directory)
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
    new.mkdir()
    try:
        _write(new / WEIGHTS_FILE, blob)
        _write(new / CONFIG_FILE, json.dumps(asdict(record), indent=2).encode() + b"\n")
        _replace_directory(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return model


# Loading


def _read_record(path: Path) -> _Record:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, it does not parse: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds {type(values).__name__}")
    version = values.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ValueError(f"{path} must have format_version {FORMAT_VERSION}, it has {version!r}")
    known = [field.name for field in fields(_Record)]
    unknown, missing = sorted(values.keys() - set(known)), [key for key in known if key not in values]
    if unknown:
        raise ValueError(f"{path} has unknown keys {', '.join(unknown)}: known are {', '.join(known)}")
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    for key, kind in (("name", str), ("model_type", str), ("hidden_size", int), ("config", dict), ("sha256", str)):
        if not isinstance(values[key], kind):
            raise ValueError(f"{path}: {key} must be of type {kind.__name__}, it is {values[key]!r}")
    for key in ("sites", "layer_norms", "head"):
        if not isinstance(values[key], list) or not all(isinstance(item, str) for item in values[key]):
            raise ValueError(f"{path}: {key} must be a list of strings, it is {values[key]!r}")
    if values["dtype"] not in WEIGHT_DTYPES[1:]:
        raise ValueError(f"{path}: dtype must be one of {', '.join(WEIGHT_DTYPES[1:])}, it is {values['dtype']!r}")
    return _Record(**values)


def _read_config(path: Path, record: _Record) -> AdapterConfig:
    # A field whose default is None came after the first files were written.
    missing = [
        field.name for field in fields(AdapterConfig) if field.default is not None and field.name not in record.config
    ]
    if missing:
        raise ValueError(f"{path}: config lacks {', '.join(missing)}")
    try:
        return AdapterConfig.from_dict(record.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _adapter_shapes(config: AdapterConfig, hidden_size: int) -> dict[str, tuple[int, ...]]:
    d, m = hidden_size, config.bottleneck
    shapes: dict[str, tuple[int, ...]] = {"down.weight": (m, d), "up.weight": (d, m)}
    return {**shapes, "down.bias": (m,), "up.bias": (d,)} if config.bias else shapes


def _read_weights(path: Path, record: _Record, config: AdapterConfig, sites: dict[str, Site]) -> dict[str, Tensor]:
    """The tensors, after their names, the adapter's shapes and dtypes, and the whole file's sha256 are checked."""
    blob = path.read_bytes()
    try:
        tensors = safetensors.torch.load(blob)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as safetensors, truncated or tampered with: {error}") from None
    adapter = {
        f"adapter.{short}.{key}": shape
        for short, site in sites.items()
        for key, shape in _adapter_shapes(config, site.width).items()
    }
    expected = {*adapter, *(f"layer_norm.{key}" for key in record.layer_norms), *(f"head.{key}" for key in record.head)}
    missing, extra = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing:
        raise ValueError(f"{path} lacks the tensor {missing[0]} ({len(missing)} missing)")
    if extra:
        raise ValueError(f"{path} has a tensor that {CONFIG_FILE} does not name, {extra[0]} ({len(extra)} extra)")
    for key, shape in adapter.items():
        _check_extent(key, tensors[key], shape, record.dtype, str(path))
    if hashlib.sha256(blob).hexdigest() != record.sha256:
        raise ValueError(f"{path} has another sha256 than {CONFIG_FILE} names, truncated or tampered with")
    return tensors


def _check_fits(model: nn.Module, path: Path, record: _Record, config: AdapterConfig) -> dict[str, Site]:
    """The model's sites by the file's names; ValueError where family, width or layers differ."""
    model_type = model_type_of(model)
    if model_type != record.model_type:
        raise ValueError(f"{path} is for model_type {record.model_type!r}, the model has {model_type!r}")
    sites = find_sites(model, config)
    hidden_size = sites[0].width
    if hidden_size != record.hidden_size:
        raise ValueError(f"{path} is for hidden_size {record.hidden_size}, the model has {hidden_size}")
    names = {_short(model, site.name): site for site in sites}
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
    names = {_short(model, parameter): parameter for parameter in parameters}
    values = {}
    for key in stored:
        if key not in names:
            option = "layer_norms" if part == "layer_norm" else part
            raise ValueError(f"{where} has {part}.{key}, which the model has not: pass {option}=False to leave it out")
        parameter = model.get_parameter(names[key])
        _check_extent(f"{part}.{key}", tensors[f"{part}.{key}"], parameter.shape, parameter.dtype, str(where))
        values[names[key]] = tensors[f"{part}.{key}"]
    return values


def load_adapters(
    model: Model,
    directory: str | os.PathLike[str],
    name: str | None = None,
    *,
    layer_norms: bool = True,
    head: bool = True,
) -> Model:
    """Add the adapter saved in a directory to the model and activate it, with the LayerNorms and head saved with it.

    In a fresh copy of the base the outputs are then those of the model it was saved from, bit for bit; weights keep
    the dtype they were saved in. The files are read and checked in full before the model is touched.

    Args:
        model: a model of the same family, width and layers.
        directory: written by save_adapters.
        name: for the adapter in this model; None takes the saved one.
        layer_norms, head: False leaves that part of the file out, and the model's own in place.

    Returns:
        The model itself, changed in place; unchanged where an error is raised.

    Raises:
        FileNotFoundError: no such directory or file.
        ValueError: truncated or tampered files, unknown or missing keys or tensors, a shape or dtype that does not
            fit, another model family, a name that is taken. One line that names it.
    """
    base = unwrap(model)
    path = _resolve(directory)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / file).is_file():
            raise FileNotFoundError(f"no saved adapter in {path}: it has no {file}")
    record = _read_record(path / CONFIG_FILE)
    config = _read_config(path / CONFIG_FILE, record)
    name = record.name if name is None else name
    check_new_name(base, name)
    sites = _check_fits(base, path / CONFIG_FILE, record, config)
    tensors = _read_weights(path / WEIGHTS_FILE, record, config, sites)
    where = path / WEIGHTS_FILE
    values: dict[str, Tensor] = {}
    if layer_norms:
        values |= _base_values(base, tensors, "layer_norm", record.layer_norms, layer_norm_parameters(base), where)
    if head:
        values |= _base_values(base, tensors, "head", record.head, head_parameters(base), where)

    before = find_state(base)
    active = None if before is None else before.active
    add_adapters(base, config, name)
    state = require_state(base, name)
    try:
        holders = sites_in(base)
        for short, site in sites.items():
            adapter = holders[site.name].adapters[name].to(getattr(torch, record.dtype))
            adapter.load_state_dict({key: tensors[f"adapter.{short}.{key}"] for key in adapter.state_dict()})
        activate(base, state, None)
        park(base, state, name, values)
        activate(base, state, name)
    except BaseException:
        remove_adapters(base, name)
        if before is not None:
            activate(base, before, active)
        raise
    return model
