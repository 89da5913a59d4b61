"""Table 1 of the paper: GLUE, adapters of the best and of one size against full fine-tuning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from ...common.errors import UserError
from ...common.files import write_whole
from ...common.markdown import markdown_table
from ...tasks.checkpoints import file_fault
from ...tasks.data.rows import Rows
from ...tasks.splits import split
from ..grid.cells import Cell, Row, Summary, plan_cells, summarize
from ..grid.engine import Job
from ..grid.lab import Lab
from ..grid.methods import adapter_cells, cell
from ..grid.options import Options
from ..grid.result import Result
from ..grid.store import Store
from ..grid.task import TRAIN, VALIDATION, Task
from ..grid.train import PREDICTIONS
from ..grid.wording import caption, means, percent, scored, share, tasks_of, times
from .load_tasks import check_metrics, read_glue
from .published import COLUMNS, TABLE, Published
from .submission import FILES, answers, majority, write_submission
from .tasks import GLUE, find_task

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
FULL_EPOCHS = 3  # BERT's; section 4.1
FIXED = 64  # the one size of Table 1's last row
MISMATCHED = "mismatched"
LEFT_OUT = "WNLI"  # of averages, as the paper and BERT leave it out
NOTE = "submission.md"
SPLIT_SEED = 0  # parts that are cut stay the same over the runs' seeds


def read_tasks(options: Options) -> list[Task]:
    """The tasks of GLUE's folder or of its name on the hub; FOLDER/TASK names one, which then must be there.

    Sizes are the most examples of a part: GLUE's tasks differ in theirs.
    """
    if not options.data:
        raise UserError("--data is needed: the folder that download_glue_data.py fills, or nyu-mll/glue")
    tasks = [task for root, names in _roots(options.data).items() for task in read_glue(root, names)]
    for task in tasks:
        if sum(task.name == other.name for other in tasks) > 1:
            raise UserError(f"--data gives {task.name} twice: expected it once")
    return [_cut(task, options) for task in tasks]


def _roots(data: Sequence[str]) -> dict[str, list[str] | None]:
    """The tasks that are named of each folder or name of the hub; None for all that are there."""
    roots: dict[str, list[str] | None] = {}
    for given in data:
        root, _, name = given.rstrip("/").rpartition("/")
        if find_task(name) is None:
            roots[given] = None
        elif (named := roots.setdefault(root or ".", [])) is not None:
            named.append(name)
    return roots


def _cut(task: Task, options: Options) -> Task:
    sizes = {name: options.train_size if name == TRAIN else options.validation_size for name in task.parts}
    made = replace(
        task,
        parts={name: _at_most(rows, sizes[name]) for name, rows in task.parts.items()},
        unlabelled={name: _at_most(rows, options.test_size) for name, rows in task.unlabelled.items()},
    )
    check_metrics(made)
    return made


def _at_most(rows: Rows, size: float | None) -> Rows:
    count = len(rows) if size is None else round(size * len(rows)) if size < 1 else int(size)
    return rows if count >= len(rows) else split(rows, max(1, count), SPLIT_SEED)[0]


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """Every task with full fine-tuning, and with adapters of every size."""
    cells = [made for task in tasks for made in (_full(lab, task, options), *adapter_cells(lab, task, options))]
    return plan_cells(cells, options.seeds, options.sweep_seeds or options.seeds, rows)


def _full(lab: Lab, task: Task, options: Options) -> Cell:
    """BERT's number of epochs where it is among those to try, else all of them."""
    made = cell(lab, task, options, "full")
    return replace(made, epochs=(FULL_EPOCHS,)) if FULL_EPOCHS in options.epochs else made


def chosen(rows: Sequence[Row]) -> dict[str, dict[str, Summary]]:
    """By line of the table, "full", "sizes" (of adapters, the best on validation) and "fixed", each task's runs."""
    summaries = summarize(rows)
    lines: dict[str, dict[str, Summary]] = {"full": {}, "sizes": {}, "fixed": {}}
    for summary in summaries:
        task = summary["task"]
        if summary["method"] == "full":
            lines["full"][task] = summary
            continue
        best = lines["sizes"].get(task)
        if best is None or summary.validation > best.validation:
            lines["sizes"][task] = summary
        if summary["bottleneck"] == FIXED:
            lines["fixed"][task] = summary
    return {name: line for name, line in lines.items() if line}


def table(result: Result) -> str:
    """Table 1: the paper's lines, each with ours under it; parameters of all tasks, and trained a task."""
    lines = chosen(result.rows)
    run = {row["task"] for row in result.rows}
    columns = [*COLUMNS, *([LEFT_OUT] if LEFT_OUT in run else [])]
    counted = [column for column in COLUMNS if _place(column)[0] in run]
    sizes = sorted({row["bottleneck"] for row in result.rows if row["method"] == "adapters"})
    called = {"full": "full", "sizes": ", ".join(map(str, sizes)), "fixed": str(FIXED)}
    cells = []
    for name, published in TABLE.items():
        cells.append(_published(published, columns, counted))
        cells.append(_ours(name, called[name], lines.get(name, {}), columns, counted))
    said = (
        "Ours: validation scores in points, mean ± standard error over seeds, learning rate, epochs and (8-256) m best "
        "on validation; the paper's: BERT-Large on the hidden test parts, each task's best of five seeds on validation",
        "Matthews correlation for CoLA, F1 for MRPC and QQP, Spearman correlation for STS-B, accuracy for the others",
        f"Average: of the columns that were run ({', '.join(counted)}), MNLI's two counted as one, for the paper's "
        "lines as for ours" + (f"; {LEFT_OUT} is left out, as in the paper" if LEFT_OUT in run else ""),
        "The paper's own totals are the leaderboard's scores: "
        + ", ".join(f"{published.score} ({published.name})" for published in TABLE.values()),
        *([f"Full fine-tuning: {FULL_EPOCHS} epochs, as BERT"] if FULL_EPOCHS in result.options.epochs else []),
        f"Total: parameters of all tasks over one model's; the paper's are of nine tasks, ours of {len(run)}",
    )
    return markdown_table(["", "total", "trained a task", *columns, "average"], cells) + caption(
        result.rows, result.options, *said
    )


def _place(column: str) -> tuple[str, str]:
    """The task and the part of a column."""
    if column.startswith("MNLI-"):
        return "MNLI", MISMATCHED if column == "MNLI-mm" else VALIDATION
    return column, VALIDATION


def _published(published: Published, columns: Sequence[str], counted: Sequence[str]) -> list[str]:
    points = [f"{published.points[column]:.1f}" if column in published.points else "" for column in columns]
    average = f"{_average(published.points, counted):.1f}" if counted else ""
    return [
        f"paper: {_name(published.name)}",
        f"{published.total:.1f}×",
        f"{100 * published.trained:g} %",
        *points,
        average,
    ]


def _name(name: str) -> str:
    return "full fine-tuning" if name == "full" else f"adapters, m = {name}"


def _ours(
    name: str, called: str, line: Mapping[str, Summary], columns: Sequence[str], counted: Sequence[str]
) -> list[str]:
    if not line:
        return [f"ours: {_name(called)}", *["not run"] * (len(columns) + 3)]
    base = next(iter(line.values()))["base_parameters"]
    trained = [summary["trained"] for summary in line.values()]
    points: dict[str, float] = {}
    cells = []
    for column in columns:
        task, part = _place(column)
        summary = line.get(task)
        chosen_size = f" (m = {summary['bottleneck']})" if summary is not None and name == "sizes" else ""
        cells.append(scored(summary, part) + chosen_size)
        if summary is not None:
            points[column] = summary.mean(part)
    complete = bool(counted) and all(column in points for column in counted)
    return [
        f"ours: {_name(called)}",
        times((sum(trained) + (0 if name == "full" else base)) / base),
        share(statistics.fmean(trained) / base),
        *cells,
        percent(_average(points, counted)) if complete else "not run",
    ]


def _average(points: Mapping[str, float], counted: Sequence[str]) -> float:
    """Over tasks; MNLI's two parts count as one."""
    tasks: dict[str, list[float]] = {}
    for column in counted:
        tasks.setdefault(_place(column)[0], []).append(points[column])
    return statistics.fmean(statistics.fmean(own) for own in tasks.values())


def finding(result: Result) -> str:
    """See find.Experiment."""
    lines = chosen(result.rows)
    found = {name: list(lines.get(name, {}).values()) for name in ("sizes", "full")}
    return f"means over {tasks_of(result.rows)} on validation: {means(found, VALIDATION)}"


def figures(result: Result) -> dict[str, Any]:
    """None: Table 1 is a table."""
    return {}


def extras(result: Result, store: Store, directory: Path) -> list[Path]:
    """The leaderboard's files of each line, as `submission-<line>/submission.zip`; submission.md says what is there.

    A task's predictions are those of its best run on validation, over seeds too, as in the paper (section 3.2). Where
    WNLI was not run and its folder is there, it is answered with its most common class, as BERT's authors did.
    """
    tasks = {task.name: task for task in read_tasks(replace(result.options, test_size=None))}
    filled = {} if LEFT_OUT in tasks else _majority(result.options)
    written, notes = [], []
    for name, line in chosen(result.rows).items():
        target = directory / f"submission-{name}"
        try:
            written.append(write_submission(target, {**filled, **_predictions(line, tasks, store)}))
            notes.append(
                f"- {name}: {target.name}/{written[-1].name}" + (f", {LEFT_OUT} by majority" if filled else "")
            )
        except UserError as error:
            notes.append(f"- {name}: not written: {error}")
    return [*written, write_whole(directory / NOTE, "\n".join(["Files for gluebenchmark.com:", "", *notes]) + "\n")]


def _predictions(line: Mapping[str, Summary], tasks: Mapping[str, Task], store: Store) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for file, (name, part) in FILES.items():
        if name not in line or part not in tasks[name].unlabelled:
            continue
        best = max(line[name].rows, key=lambda row: row["choose_by"])
        path = store.kept(best["key"]) / PREDICTIONS
        if not path.is_file():
            raise UserError(f"{path} is gone, where a run's predictions were kept")
        wrong = file_fault(path)
        if wrong is not None:
            raise UserError(f"{path}, where a run's predictions were kept, {wrong}")
        logits, rows = load_file(path)[part], tasks[name].unlabelled[part]
        if len(logits) != len(rows):
            raise UserError(f"{name}'s {part} part was cut to {len(logits)} of {len(rows)} rows (--test-size)")
        found[file] = answers(tasks[name], part, logits)
    return found


def _majority(options: Options) -> dict[str, dict[str, str]]:
    for root in _roots(options.data):
        if (Path(root) / GLUE[LEFT_OUT].name).is_dir():
            (task,) = read_glue(root, [LEFT_OUT])
            return {LEFT_OUT: majority(task, "test")}
    return {}
