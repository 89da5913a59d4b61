"""GLUE's tasks out of whatever --data names: a folder of TSV folders, a local copy of the hub's, or a hub's name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...tasks.data.glue_files import find_diagnostic, find_folder, read_diagnostic, read_part
from ...tasks.data.glue_tasks import DIAGNOSTIC, GLUE, GlueTask, find_task
from ...tasks.data.texts import Texts
from ...tasks.kinds.text import TextClassification, TextRegression
from ...tasks.splits import split
from ..grid.options import Options
from ..grid.task import TEST, TRAIN, VALIDATION, Task
from .hub import holds_parquet, read_hub_parts

DIAGNOSED = "MNLI"  # the task whose models answer the diagnostic set
CHOOSING_SHARE = 1 / 3  # of the development part, by which settings are chosen; the rest is reported
SPLIT_SEED = 0  # parts that are cut stay the same over the runs' seeds


def read_glue(data: str | Path, options: Options) -> list[Task]:
    """The tasks in GLUE's order, cut to the options' sizes, which are the most examples of a part.

    Test labels are hidden: of the development part a third, "validation", is for the choice of settings, and the rest
    is "test", which is reported; MNLI has "mismatched" too. The hidden parts are unlabelled, where they are there.

    Args:
        data: a folder with GLUE's folders (CoLA, SST-2, ...; TSV files, or parquet files as nyu-mll/glue has them), or
            the name of a data set on the hub with GLUE's configurations, as nyu-mll/glue.
        options: `tasks` must be there; without any, those that are complete are taken, and a warning names the others.

    Raises:
        UserError: an unknown name, a task that was named and is not complete, a folder without any; and what the
            readers find wrong with a file.
    """
    wanted = [_known(name) for name in options.tasks] or list(GLUE.values())
    path = Path(data)
    if not path.is_dir():
        if path.exists():
            raise UserError(f"data {path} is a file: expected GLUE's folder or a name of the hub, as nyu-mll/glue")
        return [_from_hub(task, str(data), options) for task in GLUE.values() if task in wanted]
    folders = {task.name: find_folder(path, task) for task in wanted}
    lacking = {task.name: _lacking(task, path, folders[task.name]) for task in wanted}
    if options.tasks and any(lacking.values()):
        raise UserError(next(filter(None, lacking.values())))
    if not any(folders.values()):
        raise UserError(f"data {path} has none of GLUE's folders: expected one or more of {', '.join(GLUE)}")
    complete = [task for task in GLUE.values() if task in wanted and not lacking[task.name]]
    left_out = "; ".join(f"{name} is left out: {lacking[name]}" for name in lacking if folders[name] and lacking[name])
    if not complete:
        raise UserError(left_out)
    if left_out:
        warnings.warn(f"{', '.join(task.name for task in complete)}: complete. {left_out}", stacklevel=2)
    return [_from_folder(task, path, folders[task.name], options) for task in complete]


def holds_glue(data: str | Path) -> bool:
    """Whether this is a folder with one of GLUE's folders in it."""
    path = Path(data)
    return path.is_dir() and any(find_folder(path, task) for task in GLUE.values())


def _known(name: str) -> GlueTask:
    task = find_task(name)
    if task is None:
        raise UserError(f"--task {name!r}: expected one of {', '.join(GLUE)}")
    return task


def _lacking(task: GlueTask, data: Path, folder: Path | None) -> str:
    """What of the labelled parts is not there; nothing of a complete task."""
    if folder is None:
        return f"{data} has no folder {task.name}"
    pattern = "{0.split}-*.parquet" if holds_parquet(folder) else "{0.file}"
    wanted = [pattern.format(part) for part in task.labelled.values()]
    missing = [name for name in wanted if not any(folder.glob(name))]
    return f"{folder} has no {' and no '.join(missing)}" if missing else ""


def _from_folder(task: GlueTask, data: Path, folder: Any, options: Options) -> Task:
    if holds_parquet(folder):
        labelled, unlabelled = read_hub_parts(task, str(folder))
    else:
        labelled = {name: read_part(task, folder / part.file, labelled=True) for name, part in task.labelled.items()}
        hidden = {name: folder / part.file for name, part in task.unlabelled.items()}
        unlabelled = {name: read_part(task, path, labelled=False) for name, path in hidden.items() if path.is_file()}
    return _task(task, labelled, unlabelled | _diagnostic(data) if task.name == DIAGNOSED else unlabelled, options)


def _diagnostic(data: Path) -> dict[str, Texts]:
    """The diagnostic set of a folder, which may lack it."""
    file, folder = find_diagnostic(data), data / DIAGNOSTIC.config
    if file is not None:
        return {DIAGNOSTIC.name: read_diagnostic(file)}
    return read_hub_parts(DIAGNOSTIC, str(folder))[1] if holds_parquet(folder) else {}


def _from_hub(task: GlueTask, name: str, options: Options) -> Task:
    labelled, unlabelled = read_hub_parts(task, name)
    more = read_hub_parts(DIAGNOSTIC, name)[1] if task.name == DIAGNOSED else {}
    return _task(task, labelled, unlabelled | more, options)


def _task(task: GlueTask, labelled: dict[str, Texts], unlabelled: dict[str, Texts], options: Options) -> Task:
    development = labelled[VALIDATION]
    choosing, reported = split(development, max(1, round(len(development) * CHOOSING_SHARE)), SPLIT_SEED)
    parts = {**labelled, VALIDATION: choosing, TEST: reported}
    for part in (*labelled.values(), *unlabelled.values()):
        for notice in part.notices:
            warnings.warn(notice, stacklevel=2)
    sizes = {TRAIN: options.train_size, VALIDATION: options.validation_size}
    made = Task(
        task.name,
        (TextClassification if task.labels else TextRegression)(task.metrics),
        list(task.labels),
        {name: _at_most(rows, sizes.get(name, options.test_size)) for name, rows in parts.items()},
        task.metrics[0],
        {name: _at_most(rows, options.test_size) for name, rows in unlabelled.items()},
    )
    for name, rows in made.parts.items():
        if name != TRAIN:
            made.kind.check_scored(rows, made.label_names)
    return made


def _at_most(rows: Texts, size: float | None) -> Texts:
    count = len(rows) if size is None else round(size * len(rows)) if size < 1 else int(size)
    return rows if count >= len(rows) else split(rows, max(1, count), SPLIT_SEED)[0]
