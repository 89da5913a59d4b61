"""Tokenised data on disk, by the content it was made of: the rows, the tokenizer, the length."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ...common.digest import digest
from ...common.files import write_whole
from ...tasks.data.corpora import cache_dir
from ...tasks.data.encoded import Encoded
from ...tasks.data.rows import Rows
from ...tasks.data.windows import EncodedQuestions, Window
from ...tasks.kinds.base import Kind
from ...tasks.kinds.settings import Settings

VERSION = 2  # of how rows are encoded: raise it when a kind's encode changes
_LAST_CALL = ("truncation", "padding")  # what a tokenizer keeps of its last call


def encoded(kind: Kind, rows: Rows, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
    """The rows as the kind encodes them, out of the cache where it has them; a broken file is made again."""
    path = cache_dir() / "encoded" / f"{_key(kind, rows, processor, label_names, settings)}.safetensors"
    try:
        return _unpack(rows, label_names, load_file(path))
    except (OSError, KeyError, SafetensorError):
        made = kind.encode(rows, processor, label_names, settings)
    # a cache that cannot be written costs time, not the run
    with contextlib.suppress(OSError):
        write_whole(path, save(_pack(made)))
    return made


def _key(kind: Kind, rows: Rows, processor: Any, label_names: list[str], settings: Settings) -> str:
    state = json.loads(processor.backend_tokenizer.to_str())
    tokenizer = {name: value for name, value in state.items() if name not in _LAST_CALL}
    parts = {
        "version": VERSION,
        "kind": type(kind).__name__,
        "rows": rows.digest(),
        "tokenizer": digest(tokenizer),
        "inputs": processor.model_input_names,
        "labels": label_names,
        "length": kind.length(settings),
        "stride": settings.stride,
    }
    return digest(parts)


def _pack(made: Encoded) -> dict[str, np.ndarray]:
    """Each column as an array, one of lists as their values one after another and their lengths."""
    columns = dict(made.columns)
    if isinstance(made, EncodedQuestions):
        columns |= {
            "window.row": [window.row for window in made.windows],
            "window.first": [window.first for window in made.windows],
            "window.characters": [[place for pair in window.characters for place in pair] for window in made.windows],
        }
    arrays = {}
    for name, values in columns.items():
        if values and isinstance(values[0], (list, tuple)):
            arrays[f"{name}:values"] = np.asarray([value for row in values for value in row], dtype=np.int32)
            arrays[f"{name}:lengths"] = np.asarray([len(row) for row in values], dtype=np.int32)
        else:
            arrays[name] = np.asarray(values)
    return arrays


def _unpack(rows: Rows, label_names: list[str], arrays: dict[str, np.ndarray]) -> Encoded:
    columns: dict[str, list[Any]] = {}
    for name, array in arrays.items():
        column, _, part = name.partition(":")
        if part == "values":
            ends = np.cumsum(arrays[f"{column}:lengths"])
            columns[column] = [row.tolist() for row in np.split(array, ends[:-1])]
        elif not part:
            columns[column] = array.tolist()
    if "window.row" not in columns:
        return Encoded(rows, label_names, columns)
    places = columns.pop("window.characters")
    windows = [
        Window(row, first, list(zip(place[::2], place[1::2])))
        for row, first, place in zip(columns.pop("window.row"), columns.pop("window.first"), places)
    ]
    return EncodedQuestions(rows, columns, windows)  # type: ignore[arg-type]
