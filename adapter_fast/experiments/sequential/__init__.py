"""Tasks learned one after another: a frozen model with an adapter a task, against sequential and joint fine-tuning."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ...common.errors import UserError
from .. import data
from ..grid import texts
from ..grid.cells import Cell, Row, plan_cells, summarize
from ..grid.engine import Job
from ..grid.lab import Lab
from ..grid.methods import adapter_cells, cell
from ..grid.options import Options
from ..grid.result import Result
from ..grid.spec import Spec
from ..grid.task import Task
from .accuracy import courses
from .joint import common_settings
from .kept import LAST_WRITTEN
from .step import ADAPTERS, JOINT, SEQUENTIAL, Step
from .table import table

__all__ = ["COMMAND", "PAPER", "PICTURES", "QUICK", "figures", "finding", "plan", "read_tasks", "table"]

COMMAND = "--data 20newsgroups --data reuters-r52"
PICTURES = {
    "sequential": "Accuracy on each task after every step of learning one task after another",
}
WHOLE = True  # its tables and figures need every run
PAPER = replace(texts.PAPER, seeds=3, tops=())
QUICK = replace(texts.QUICK, data=("election-tweets", "reuters-r8"), bottlenecks=(8,), tops=())


def read_tasks(options: Options) -> list[Task]:
    """The labelled text sets in the order in which they are learned; at least two."""
    if options.task_seeds:
        raise UserError(
            f"--seeds {next(iter(options.task_seeds))}=…: tasks that are learned in turn have the same seeds"
        )
    tasks = data.read_tasks(options)
    if len(tasks) < 2:
        raise UserError(f"--data gives one task, {tasks[0].name}: expected two or more to learn one after another")
    return tasks


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """Full fine-tuning of a model a task, then every chain as far as its steps are done, and one step more.

    Learning rate, epochs and m of a task are those that are best on validation where the task is learned alone: the
    runs of `classification`, which are shared. Sequential and joint fine-tuning take full fine-tuning's.
    What a finished step kept for the one after it is deleted here once that one is finished too.
    """
    full = [[cell(lab, task, options, "full")] for task in tasks]
    adapters = [adapter_cells(lab, task, options) for task in tasks]
    tried = [*full, *(cells for cells in adapters if _several(cells))]
    jobs: list[Job] = [spec for cells in tried for spec in _sweep(cells, options, rows)]
    for method, cells_of in ((ADAPTERS, adapters), (SEQUENTIAL, full), (JOINT, full)):
        chosen = [_choice(cells, options, rows) for cells in cells_of]
        known = [spec for spec in chosen if spec is not None]
        if len(known) == len(tasks):
            for seed in range(options.seeds):
                jobs += _steps(lab, method, [replace(spec, seed=seed) for spec in known], rows)
    return jobs


def _several(cells: Sequence[Cell]) -> bool:
    return sum(len(own.choices()) for own in cells) > 1


def _sweep(cells: Sequence[Cell], options: Options, rows: Mapping[str, Row]) -> list[Spec]:
    return plan_cells(cells, rows)


def _choice(cells: Sequence[Cell], options: Options, rows: Mapping[str, Row]) -> Spec | None:
    """The only one there is, or the best on validation; None while runs of the sweep are missing."""
    if not _several(cells):
        return cells[0].spec.at(*cells[0].choices()[0], seed=0)
    runs = _sweep(cells, options, rows)
    if any(run.key not in rows for run in runs):
        return None
    best = max(summarize(rows[run.key] for run in runs), key=lambda summary: summary.validation)
    return next(run for run in runs if run.key == best["key"])


def _steps(lab: Lab, method: str, chain: list[Spec], rows: Mapping[str, Row]) -> list[Step]:
    if method == JOINT:
        return [Step(JOINT, common_settings(chain))]
    steps = [Step(method, tuple(chain[: i + 1])) for i in range(len(chain))]
    for step, following in pairwise(steps):
        if step.key in rows and following.key in rows:
            kept = lab.store.kept(step.key)
            (kept / LAST_WRITTEN).unlink(missing_ok=True)
            shutil.rmtree(kept, ignore_errors=True)
    done = next((i for i, step in enumerate(steps) if step.key not in rows), len(steps))
    return steps[: done + 1]


def finding(result: Result) -> str:
    """See find.Experiment."""
    found = courses(result.rows)
    names = {"adapters": "an adapter a task", "sequential": "sequential fine-tuning"}
    lost = {name: found[name].forgotten().mean() for name in names if name in found}
    return (
        f"points forgotten, mean over the {found['adapters'].scores.shape[2] - 1} tasks that others came after: "
        + ", ".join(f"{names[name]} {100 * value:.1f}" for name, value in lost.items())
    )


def figures(result: Result) -> dict[str, Any]:
    """`sequential`: each task's accuracy after every step."""
    from .accuracy import courses
    from .steps_figure import steps_figure

    return {"sequential": steps_figure(courses(result.rows), result)}
