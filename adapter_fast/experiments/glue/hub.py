"""GLUE by the names of `datasets`: nyu-mll/glue, or a local copy of its parquet files; `datasets` is optional."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

from ...common.errors import UserError, first_line
from ...tasks.data.glue_files import make_pairs
from ...tasks.data.glue_tasks import SCORES, GlueTask
from ...tasks.data.texts import Texts


def holds_parquet(folder: Path) -> bool:
    """Whether the folder is a configuration's of a local copy."""
    return any(folder.glob("*.parquet"))


def read_hub_parts(task: GlueTask, name: str) -> tuple[dict[str, Texts], dict[str, Texts]]:
    """The labelled and the unlabelled parts of the task's configuration.

    Args:
        name: of a data set on the hub, or the folder of a configuration's parquet files (train-00000-of-00001.parquet).

    Raises:
        UserError: `datasets` is not installed, the name does not load, a split or a field is missing, a label is
            outside the task's set, a row's idx occurs twice.
    """
    splits = _load(name, task)
    labelled = {part: _rows(task, name, splits, place.split, True) for part, place in task.labelled.items()}
    unlabelled = {part: _rows(task, name, splits, place.split, False) for part, place in task.unlabelled.items()}
    return labelled, unlabelled


def _load(name: str, task: GlueTask) -> Any:
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{name} is read with the package datasets, which is not installed: pip install datasets")
    import datasets

    try:
        if not Path(name).is_dir():
            return datasets.load_dataset(name, task.config)
        # by file, since the names of splits such as validation_matched would else be taken for one split validation
        wanted = [place.split for place in (*task.labelled.values(), *task.unlabelled.values())]
        files = {split: sorted(map(str, Path(name).glob(f"{split}-*.parquet"))) for split in wanted}
        return datasets.load_dataset("parquet", data_files={split: found for split, found in files.items() if found})
    except Exception as error:  # whatever a hub, a network or a broken file makes datasets raise
        raise UserError(
            f"{name}, configuration {task.config!r}, does not load: {first_line(error.__cause__ or error)}"
        ) from error


def _rows(task: GlueTask, name: str, splits: Any, split: str, labelled: bool) -> Texts:
    where = f"{name}, {task.config}, {split}"
    if split not in splits:
        raise UserError(f"{where}: no such split: there are {', '.join(sorted(splits))}")
    data = splits[split]
    fields = [*task.hub_texts, "idx", *(["label"] if labelled else [])]
    missing = [field for field in fields if field not in data.column_names]
    if missing:
        raise UserError(f"{where}: no field {missing[0]!r}: its fields are {', '.join(data.column_names)}")
    if not len(data):
        raise UserError(f"{where} has no examples")
    ids = [str(value) for value in data["idx"]]
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{where}: idx {twice[0]} occurs twice")
    texts = [list(data[field]) for field in task.hub_texts]
    for field, column in zip(task.hub_texts, texts, strict=True):
        wrong = next((row for row, text in zip(ids, column, strict=True) if not isinstance(text, str)), None)
        if wrong is not None:
            raise UserError(f"{where}, idx {wrong}: {field!r} is no text")
    labels = (
        [_label(task, f"{where}, idx {row}", value) for row, value in zip(ids, data["label"])] if labelled else None
    )
    return make_pairs(task, where, ids, texts, labels)


def _label(task: GlueTask, where: str, value: Any) -> str:
    """A class's number as its name; the hub's order of classes is GLUE's. Scores stay numbers."""
    if task.labels:
        if not isinstance(value, int) or not 0 <= value < len(task.labels):
            raise UserError(f"{where}: label must be a class number from 0 to {len(task.labels) - 1}, got {value!r}")
        return task.labels[value]
    low, high = SCORES
    if not isinstance(value, float) or not low <= value <= high:
        raise UserError(f"{where}: label must be a number from {low:g} to {high:g}, got {value!r}")
    return str(value)
