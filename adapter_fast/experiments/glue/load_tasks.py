"""GLUE's tasks out of whatever --data names: a folder of TSV folders, a local copy of the hub's, or a hub's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError
from ...tasks.data.text_pairs import TextPairs
from ...tasks.kinds.pairs import PairClassification
from ...tasks.metrics.glue import glue_scores
from ..grid.task import TRAIN, Task
from .hub import holds_parquet, read_hub_parts
from .tasks import DIAGNOSTIC, GLUE, GlueTask, find_task
from .tsv import find_diagnostic, find_folder, read_diagnostic, read_parts

DIAGNOSED = "MNLI"  # the task whose models answer the diagnostic set


def read_glue(data: str | Path, names: Sequence[str] | None = None) -> list[Task]:
    """The tasks in GLUE's order: parts train and validation, MNLI's also mismatched; the test parts unlabelled.

    Args:
        data: a folder with GLUE's folders (CoLA, SST-2, ...; TSV files, or parquet files as nyu-mll/glue has them), or
            the name of a data set on the hub with GLUE's configurations, as nyu-mll/glue.
        names: the tasks that must be there, by folder or configuration; None: those whose folder is there.

    Raises:
        UserError: an unknown name, a task that was named and is not there, a folder without any; and what the readers
            find wrong with a file.
    """
    wanted = [_known(name) for name in names] if names is not None else None
    path = Path(data)
    if not path.is_dir():
        if path.exists():
            raise UserError(f"data {path} is a file: expected GLUE's folder or a name of the hub, as nyu-mll/glue")
        return [_from_hub(task, str(data)) for task in GLUE.values() if wanted is None or task in wanted]
    folders = {name: find_folder(path, task) for name, task in GLUE.items()}
    missing = [task.name for task in wanted or [] if folders[task.name] is None]
    if missing:
        raise UserError(f"data {path} has no folder {missing[0]}: expected it there, or not to be asked for")
    if not any(folders.values()):
        raise UserError(f"data {path} has none of GLUE's folders: expected one or more of {', '.join(GLUE)}")
    chosen = GLUE.values() if wanted is None else [task for task in GLUE.values() if task in wanted]
    return [_from_folder(task, path, folder) for task in chosen if (folder := folders[task.name])]


def _known(name: str) -> GlueTask:
    task = find_task(name)
    if task is None:
        raise UserError(f"unknown task {name!r}: expected one of {', '.join(GLUE)}")
    return task


def _from_folder(task: GlueTask, data: Path, folder: Path) -> Task:
    parquet = holds_parquet(folder)
    labelled, unlabelled = read_hub_parts(task, str(folder)) if parquet else read_parts(task, folder)
    return _task(task, labelled, unlabelled | _diagnostic(data) if task.name == DIAGNOSED else unlabelled)


def _diagnostic(data: Path) -> dict[str, TextPairs]:
    """The diagnostic set of a folder, which may lack it."""
    file, folder = find_diagnostic(data), data / DIAGNOSTIC.config
    if file is not None:
        return {DIAGNOSTIC.name: read_diagnostic(file)}
    return read_hub_parts(DIAGNOSTIC, str(folder))[1] if holds_parquet(folder) else {}


def _from_hub(task: GlueTask, name: str) -> Task:
    labelled, unlabelled = read_hub_parts(task, name)
    return _task(
        task, labelled, unlabelled | read_hub_parts(DIAGNOSTIC, name)[1] if task.name == DIAGNOSED else unlabelled
    )


def _task(task: GlueTask, labelled: dict[str, TextPairs], unlabelled: dict[str, TextPairs]) -> Task:
    made = Task(task.name, task.kind(), list(task.labels), labelled, task.metrics[0], unlabelled)
    check_metrics(made)
    return made


def check_metrics(task: Task) -> None:
    """Raise UserError where a metric is undefined for a part, before anything is trained."""
    for name, rows in task.parts.items():
        if name != TRAIN and isinstance(rows, TextPairs) and isinstance(task.kind, PairClassification):
            labels: Any = rows.labels
            gold = np.asarray([task.label_names.index(label) for label in labels] if task.label_names else labels)
            glue_scores(task.kind.metrics, gold, gold, rows.source)
