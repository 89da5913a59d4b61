"""save_adapters: an adapter of a model, and the LayerNorms and head trained with it, to a directory."""

from __future__ import annotations

import os
from typing import TypeVar

from torch import Tensor, nn

from ..common.directories import replace_directory
from ..placement.container import site_of
from ..placement.inject import check_name
from ..placement.sharded import on_first_process, whole
from ..placement.sites import Site, find_sites, head_parameters, layer_norm_parameters, model_type_of
from ..placement.state import require_state, tuned_values, unwrap
from .record import CONFIG_FILE, FORMAT_VERSION, WEIGHTS_FILE, Record, Saved, one_dtype, own_files, short

Model = TypeVar("Model", bound=nn.Module)


def collect(model: nn.Module, name: str) -> Saved:
    """The named adapter of an unwrapped model as it is saved; nothing is written."""
    from .. import __version__

    check_name(name)
    state = require_state(model, name)
    config = state.configs[name]
    sites = find_sites(model, config)
    tensors: dict[str, Tensor] = {}
    for site in sites:
        for key, value in _adapter(site, name).state_dict().items():
            tensors[f"adapter.{short(model, site.name)}.{key}"] = value
    dtype = one_dtype(name, tensors.values())
    tuned = tuned_values(model, state, name)
    norms = [parameter for parameter in layer_norm_parameters(model) if parameter in tuned]
    head = [parameter for parameter in head_parameters(model) if parameter in tuned]
    tensors.update({f"layer_norm.{short(model, parameter)}": tuned[parameter] for parameter in norms})
    tensors.update({f"head.{short(model, parameter)}": tuned[parameter] for parameter in head})
    for key, value in tensors.items():
        if value.is_meta:
            raise ValueError(f"{key} is on the meta device and has no values to save")
        tensors[key] = whole(value)
    record = Record(
        format_version=FORMAT_VERSION,
        library_version=__version__,
        name=name,
        model_type=str(model_type_of(model)),
        hidden_size=sites[0].width,
        config=config.to_dict(),
        dtype=dtype,
        sites=[short(model, site.name) for site in sites],
        layer_norms=[short(model, parameter) for parameter in norms],
        head=[short(model, parameter) for parameter in head],
        sha256="",
    )
    return Saved(record, tensors)


def _adapter(site: Site, name: str) -> nn.Module:
    return site_of(site.module).adapters[name]  # type: ignore[union-attr]


def save_adapters(model: Model, directory: str | os.PathLike[str], name: str = "default") -> Model:
    """Write the named adapter, and the LayerNorms and head trained with it, to a directory: whole or not at all.

    The files are written beside the directory and renamed into place. An adapter saved there before is replaced, and
    stays as it was where anything fails; a directory that holds any other file is refused. Where parameters are spread
    over processes (fully_shard, tensor parallelism) every process must call this: the values are gathered, and process
    0 writes what a single process would have written. With DistributedDataParallel call it on one process.

    Args:
        model: a model with an adapter of this name, active or not. It is not changed.
        directory: new, empty, or of a saved adapter. Missing parents are made.
        name: which adapter.

    Returns:
        The model itself.

    Raises:
        ValueError: no adapter of this name, a directory with other files, weights on the meta device.
        OSError: the files could not be written; on the other processes of a sharded model RuntimeError.
    """
    base = unwrap(model)
    saved = collect(base, name)
    files = (CONFIG_FILE, WEIGHTS_FILE)
    on_first_process(base, lambda: replace_directory(directory, own_files(saved), files))
    return model
