"""convert_adapter: a saved adapter from this library's files to AdapterHub's or back, without the model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..common.directories import Content, read_whole, replace_directory, resolve
from .adapterhub.names import FILES
from .adapterhub.read import is_adapterhub, read_adapterhub, refuse_other_kinds
from .adapterhub.write import Base, adapterhub_files
from .card import CARD_FILE, card_of
from .record import CONFIG_FILE, WEIGHTS_FILE, Saved, own_files, parse_config, parse_record, read_config, read_tensors

FORMATS = ("adapterhub", "adapter_fast")


def convert_adapter(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    to: str,
    *,
    layer_norms: bool = True,
    head: bool = True,
    model_class: str | None = None,
    layers: int | None = None,
) -> None:
    """Write the adapter saved in one directory to another, in the other format; whole or not at all.

    Args:
        source: written by save_adapters, or by AdapterHub's save_adapter.
        output: new, empty, or of a saved adapter of that format. Missing parents are made.
        to: "adapterhub" or "adapter_fast".
        layer_norms, head: False leaves that part out. AdapterHub's files have no place for LayerNorms.
        model_class: of the base model with its head, as "BertForSequenceClassification": AdapterHub's files name it,
            ours do not.
        layers: of the base model: needed where the adapter leaves layers out, which AdapterHub's files list.

    Raises:
        FileNotFoundError, ValueError: as in load_adapters and export_adapterhub. OSError: nothing could be written.
    """
    if to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(FORMATS)}, got {to!r}")
    where = resolve(source)
    if where == resolve(output):
        raise ValueError(f"output must be another directory than source, both are {where}")
    saved = read_whole(source, lambda path: _read(path, to, head))
    if to == "adapter_fast":
        ours: dict[str, Content] = {**own_files(saved), CARD_FILE: lambda: card_of(saved.record, output)}
        replace_directory(output, ours, (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE))
    else:
        replace_directory(output, adapterhub_files(saved, Base(layers, model_class), layer_norms=layer_norms), FILES)


def _read(path: Path, to: str, head: bool) -> Saved:
    """The adapter in a directory of the other format."""
    if not (path / CONFIG_FILE).is_file():
        refuse_other_kinds(path)
        raise FileNotFoundError(f"no saved adapter in {path}: it has no {CONFIG_FILE}")
    values = read_config(path / CONFIG_FILE)
    if is_adapterhub(values) == (to == "adapterhub"):
        raise ValueError(f"{path} is in the format {to} already")
    if is_adapterhub(values):
        return read_adapterhub(path, values, head)[0]
    record = parse_record(path / CONFIG_FILE, values)
    config = parse_config(path / CONFIG_FILE, record)
    tensors = read_tensors(path / WEIGHTS_FILE, record, config, dict.fromkeys(record.sites, record.hidden_size))
    return Saved(record if head else replace(record, head=[]), tensors)
