"""save_adapters: an adapter of a model, and the LayerNorms and head trained with it, to a directory."""

from __future__ import annotations

import os
from typing import TypeVar

from torch import nn

from ..common.directories import Content, replace_directory
from ..placement.sharded import on_first_process
from ..placement.state import unwrap
from .card import CARD_FILE, card_of
from .record import CONFIG_FILE, WEIGHTS_FILE, own_files
from .record.collect import collect

Model = TypeVar("Model", bound=nn.Module)


def save_adapters(model: Model, directory: str | os.PathLike[str], name: str = "default") -> Model:
    """Write the named adapter, and the LayerNorms and head trained with it, to a directory: whole or not at all.

    Beside them stand the base's name and a digest of it, the classes' names, and a model card (README.md, which stays
    where it was changed by hand).

    The files are written beside the directory and renamed into place. An adapter saved there before is replaced, and
    stays as it was where anything fails; a directory that holds any other file is refused. Several processes may save
    there, one after the other, and load meanwhile (flock of the parent directory, where the file system has it). Where
    parameters are spread over processes (fully_shard, tensor parallelism) every process must call this: the values are
    gathered, and process 0 writes what a single process would have written. With DistributedDataParallel call it on one
    process.

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
    known = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
    files: dict[str, Content] = {**own_files(saved), CARD_FILE: lambda: card_of(saved.record, directory)}
    on_first_process(base, lambda: replace_directory(directory, files, known))
    return model
