"""Table 1 of the paper: GLUE, adapters of the best and of one size against full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import write_whole
from ...tasks.data.glue_files import find_folder
from ...tasks.data.glue_tasks import GLUE
from ..grid.cells import Cell, Row, Summary, plan_cells
from ..grid.engine import Job
from ..grid.lab import Lab
from ..grid.methods import adapter_cells, cell
from ..grid.options import Options
from ..grid.result import Result
from ..grid.spec import Spec
from ..grid.task import Task
from ..grid.wording import means, tasks_of
from .load_tasks import holds_glue, read_glue
from .predict import Prediction
from .submission import FILES, answers, majority, write_submission
from .table import FULL_EPOCHS, LEFT_OUT, chosen, table

__all__ = ["COMMAND", "PAPER", "PICTURES", "QUICK", "extras", "figures", "finding", "plan", "read_tasks", "table"]

COMMAND = "--model bert-large-uncased --data GLUE"
PICTURES: dict[str, str] = {}
# Sections 3.1 and 3.2. Full fine-tuning in Table 1 is BERT's own, with BERT's sweep (Devlin et al. 2019, section 4.1).
PAPER = Options(
    seeds=5,
    rates={"adapters": (3e-5, 3e-4, 3e-3), "full": (2e-5, 3e-5, 4e-5, 5e-5)},
    epochs=(3, 20),
    bottlenecks=(8, 64, 256),
)
QUICK = Options(
    seeds=2,
    rates={"adapters": (3e-3,), "full": (1e-4,)},
    epochs=(1,),
    bottlenecks=(8, 64),
    batch_size=8,
    max_length=32,
    train_size=32,
    validation_size=16,
    test_size=16,
)
NOTE = "submission.md"


def read_tasks(options: Options) -> list[Task]:
    """The tasks of GLUE's folder or of its name on the hub: those of --task, or all that are complete."""
    if len(options.data) != 1:
        raise UserError(
            f"--data was given {len(options.data)} times: expected once, the folder that download_glue_data.py fills, "
            "or nyu-mll/glue"
        )
    tasks = read_glue(options.data[0], options)
    options.check_tasks([task.name for task in tasks])
    return tasks


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """Every task with its head alone, with full fine-tuning, and with adapters of every size; then predictions."""
    cells = [
        made
        for task in tasks
        for made in (cell(lab, task, options, "head"), _full(lab, task, options), *adapter_cells(lab, task, options))
    ]
    runs = plan_cells(cells, rows)
    if any(run.key not in rows for run in runs):
        return runs
    return [*runs, *_predictions(runs, tasks, rows)]


def _predictions(runs: Sequence[Spec], tasks: Sequence[Task], rows: Mapping[str, Row]) -> list[Prediction]:
    """Of the table's lines, each task's best run on validation, where it predicted nothing when it was trained."""
    hidden = {task.name for task in tasks if task.unlabelled}
    specs = {run.key: run for run in runs}
    best = [summary.best_seed for line in chosen([rows[key] for key in specs]).values() for summary in line.values()]
    return [Prediction(specs[row["key"]]) for row in best if row["task"] in hidden and "predicted" not in row]


def _full(lab: Lab, task: Task, options: Options) -> Cell:
    """BERT's number of epochs where it is among those to try, else all of them."""
    made = cell(lab, task, options, "full")
    return replace(made, epochs=(FULL_EPOCHS,)) if FULL_EPOCHS in options.epochs else made


def finding(result: Result) -> str:
    """See find.Experiment."""
    lines = chosen(result.rows)
    adapters = lines.get("sizes") or lines.get("fixed") or {}
    found = {"adapters": list(adapters.values()), "full": list(lines.get("full", {}).values())}
    runs = [row for row in result.rows if "choose_by" in row]
    return f"means over {tasks_of(runs)}, development part: {means(found)}"


def figures(result: Result) -> dict[str, Any]:
    """None: Table 1 is a table."""
    return {}


def extras(result: Result, directory: Path) -> list[Path]:
    """The leaderboard's files of each line in `submission-<line>/`; submission.md says what is there.

    A task's predictions are those of its best run on validation, over seeds too, as in the paper (section 3.2). Where
    WNLI was not run and its folder is there, it is answered with its most common class, as BERT's authors did.
    """
    tasks = {task.name: task for task in read_tasks(replace(result.options, test_size=None))}
    filled = {} if LEFT_OUT in tasks else _majority(result.options)
    written, notes = [], []
    for name, line in chosen(result.rows).items():
        target = directory / f"submission-{name}"
        try:
            files, said = write_submission(target, {**filled, **_answers(line, tasks, result.rows)})
            written += files
            notes.append(f"- {name}: {target.name}/{said}" + (f", {LEFT_OUT} by majority" if filled else ""))
        except UserError as error:
            notes.append(f"- {name}: not written: {error}")
    return [*written, write_whole(directory / NOTE, "\n".join(["Files for gluebenchmark.com:", "", *notes]) + "\n")]


def _answers(line: Mapping[str, Summary], tasks: Mapping[str, Task], rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    later = {row["predicts"]: row["predicted"] for row in rows if "predicts" in row}
    found: dict[str, dict[str, str]] = {}
    for file, (name, part) in FILES.items():
        if name not in line or part not in tasks[name].unlabelled:
            continue
        best = line[name].best_seed
        predicted = best.get("predicted") or later.get(best["key"])
        if predicted is not None:
            found[file] = answers(tasks[name], part, predicted[part].split())
    return found


def _majority(options: Options) -> dict[str, dict[str, str]]:
    """WNLI's; nothing where it is not there whole."""
    if not holds_glue(options.data[0]) or find_folder(Path(options.data[0]), GLUE[LEFT_OUT]) is None:
        return {}
    try:
        (task,) = read_glue(options.data[0], replace(options, tasks=(LEFT_OUT,), test_size=None))
    except UserError:
        return {}
    return {LEFT_OUT: majority(task, "test")} if task.unlabelled else {}
