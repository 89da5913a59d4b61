"""This library's own files: adapter_config.json, the record, and adapter.safetensors, the tensors it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ...common.directories import read_json
from ...config import WEIGHT_DTYPES, AdapterConfig

FORMAT_VERSION = 1
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"
# AdapterConfig's fields when the first files were written: a later one, where it is absent, has its default.
FIRST_FIELDS = (
    "bottleneck", "activation", "placement", "scale", "bias", "init_std", "implementation", "dtype", "memory",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """adapter_config.json, field by field. Names of modules and parameters lack the base model's prefix."""

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
    base: dict[str, Any] = field(default_factory=dict)  # name, revision, digest: record/base.py
    labels: list[str] | None = None  # of the head's classes
    transformers_version: str | None = None
    record_sha256: str | None = None  # of all the other fields; files of before it have none

    def digest(self) -> str:
        """The sha256 of canonical JSON: without record_sha256, keys sorted, no blanks."""
        values = {key: value for key, value in asdict(self).items() if key != "record_sha256"}
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Saved(NamedTuple):
    """An adapter outside of a model.

    Keys of tensors: adapter.{site}.{down.weight …}, layer_norm.{parameter}, head.{parameter}.
    """

    record: Record
    tensors: dict[str, Tensor]


def without_prefix(model: nn.Module, name: str) -> str:
    """A module's or parameter's name without the base model's prefix, as in the files."""
    return name.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.")


def dtype_name(dtype: torch.dtype) -> str:
    """As in the files: "float32"."""
    return str(dtype).removeprefix("torch.")


def one_dtype(name: str, tensors: Iterable[Tensor]) -> str:
    """The dtype of an adapter's weights; ValueError where they have several, or one that no adapter can have."""
    dtypes = sorted({dtype_name(value.dtype) for value in tensors})
    if len(dtypes) > 1:
        raise ValueError(f"adapter {name!r} must have weights of one dtype, it has {', '.join(dtypes)}")
    if dtypes[0] not in WEIGHT_DTYPES[1:]:
        raise ValueError(f"adapter {name!r} must have weights of {', '.join(WEIGHT_DTYPES[1:])}, it has {dtypes[0]}")
    return dtypes[0]


def check_extent(
    name: str, tensor: Tensor, shape: torch.Size | tuple[int, ...], dtype: torch.dtype | str, where: str
) -> None:
    """Raise ValueError unless a stored tensor has this shape and dtype."""
    if tensor.shape != torch.Size(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, {where} has {list(tensor.shape)}")
    expected = dtype if isinstance(dtype, str) else dtype_name(dtype)
    if dtype_name(tensor.dtype) != expected:
        raise ValueError(f"{name} must be {expected}, {where} has {dtype_name(tensor.dtype)}")


def check_keys(where: Path | str, expected: set[str], found: Iterable[str], by: str) -> None:
    """Raise ValueError unless a file's tensors are those expected; `by` says who expects them."""
    found = set(found)
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing:
        raise ValueError(f"{where} lacks the tensor {missing[0]} ({len(missing)} missing)")
    if extra:
        raise ValueError(f"{where} has a tensor that {by} does not name, {extra[0]} ({len(extra)} extra)")


def own_files(saved: Saved) -> dict[str, bytes]:
    """The directory's files by name."""
    blob = safetensors.torch.save(
        {key: value.detach().cpu().contiguous().clone() for key, value in saved.tensors.items()}
    )
    record = replace(saved.record, sha256=hashlib.sha256(blob).hexdigest())
    record = replace(record, record_sha256=record.digest())
    return {WEIGHTS_FILE: blob, CONFIG_FILE: json.dumps(asdict(record), indent=2).encode() + b"\n"}


def read_config(path: Path) -> dict[str, Any]:
    """The object in an adapter_config.json, ours or AdapterHub's; ValueError says what reads one of PEFT's."""
    values = read_json(path)
    if "peft_type" in values:
        own = ", after import adapter_fast.integrations.peft" if values["peft_type"] == "BOTTLENECK" else ""
        raise ValueError(
            f"{path} is a PEFT adapter's, of peft_type {values['peft_type']!r}: "
            f"peft.PeftModel.from_pretrained loads it{own}"
        )
    return values


def parse_record(path: Path, values: Mapping[str, Any]) -> Record:
    """The record in the JSON object of this file; ValueError names what is not as it must be."""
    version = values.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ValueError(f"{path} must have format_version {FORMAT_VERSION}, it has {version!r}")
    known = [each.name for each in fields(Record)]
    needed = [each.name for each in fields(Record) if each.default is MISSING and each.default_factory is MISSING]
    unknown, missing = sorted(values.keys() - set(known)), [key for key in needed if key not in values]
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
    base, labels = values.get("base", {}), values.get("labels")
    if not isinstance(base, dict):
        raise ValueError(f"{path}: base must be of type dict, it is {base!r}")
    if labels is not None and (not isinstance(labels, list) or not all(isinstance(item, str) for item in labels)):
        raise ValueError(f"{path}: labels must be a list of strings, it is {labels!r}")
    if values["dtype"] not in WEIGHT_DTYPES[1:]:
        raise ValueError(f"{path}: dtype must be one of {', '.join(WEIGHT_DTYPES[1:])}, it is {values['dtype']!r}")
    return Record(**values)


def parse_config(path: Path, record: Record) -> AdapterConfig:
    """The adapter's configuration; ValueError where it is not one."""
    missing = [name for name in FIRST_FIELDS if name not in record.config]
    if missing:
        raise ValueError(f"{path}: config lacks {', '.join(missing)}")
    try:
        return AdapterConfig.from_dict(record.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def adapter_shapes(config: AdapterConfig, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of one adapter's tensors by their state-dict keys."""
    d, m = hidden_size, config.bottleneck
    shapes: dict[str, tuple[int, ...]] = {"down.weight": (m, d), "up.weight": (d, m)}
    return {**shapes, "down.bias": (m,), "up.bias": (d,)} if config.bias else shapes


def read_tensors(path: Path, record: Record, config: AdapterConfig, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors, after their names, the adapter's shapes and dtypes, the file's sha256 and the record's are checked.

    Args:
        path: of adapter.safetensors.
        widths: d by site.
    """
    blob = path.read_bytes()
    tensors = read_safetensors(path, blob)
    adapter = {
        f"adapter.{site}.{key}": shape
        for site, width in widths.items()
        for key, shape in adapter_shapes(config, width).items()
    }
    expected = {*adapter, *(f"layer_norm.{key}" for key in record.layer_norms), *(f"head.{key}" for key in record.head)}
    check_keys(path, expected, tensors, CONFIG_FILE)
    for key, shape in adapter.items():
        check_extent(key, tensors[key], shape, record.dtype, str(path))
    if hashlib.sha256(blob).hexdigest() != record.sha256:
        raise ValueError(f"{path} has another sha256 than {CONFIG_FILE} names, truncated or tampered with")
    if record.record_sha256 not in (None, record.digest()):
        raise ValueError(
            f"{path.with_name(CONFIG_FILE)} was changed after it was saved: its record_sha256 is of other values "
            f"(without that key it is loaded as it is)"
        )
    return tensors


def read_safetensors(path: Path, blob: bytes) -> dict[str, Tensor]:
    """The tensors in a safetensors file's bytes; ValueError names the path."""
    try:
        return safetensors.torch.load(blob)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as safetensors, truncated or tampered with: {error}") from None
