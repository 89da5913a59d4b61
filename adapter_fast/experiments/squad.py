"""Section 3.5 and Figure 5 of the paper: SQuAD v1.1, adapters over m against fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.markdown import markdown_table
from ..tasks.data.questions import Questions, read_questions
from ..tasks.data.questions_hub import read_hub_questions
from ..tasks.kinds.find import load_kind
from ..tasks.splits import split
from .grid import texts
from .grid.cells import Cell, Row, Summary, plan_cells, summarize
from .grid.engine import Job
from .grid.lab import Lab
from .grid.methods import adapter_cells, cell, top_cells
from .grid.options import Options
from .grid.result import Result
from .grid.task import TRAIN, VALIDATION, Task
from .grid.wording import caption, means, scored, share

COMMAND = "--model bert-base-uncased --data SQUAD"
PICTURES = {
    "squad": "F1 of answers against trained parameters",
}
# Section 3.5. Its rates and epochs of fine-tuning are for full and for the top k layers alike; which k it tried, it
# does not say: these are section 3.3's. Seeds: Figure 5. Length and stride: BERT's code, run_squad.py.
PAPER = Options(
    seeds=3,
    rates={"adapters": (3e-5, 1e-4, 3e-4, 1e-3), "full": (3e-5, 5e-5, 1e-4), "top": (3e-5, 5e-5, 1e-4)},
    epochs=(3, 10, 20),
    bottlenecks=(2, 8, 64, 256),
    tops=texts.PAPER.tops,
    max_length=384,
    stride=128,
)
FINE_TUNING_EPOCHS = (2, 3, 5)  # section 3.5, in place of the adapters'; --epochs takes the place of both
QUICK = replace(
    PAPER,
    seeds=2,
    rates={"adapters": (1e-3,), "full": (1e-4,), "top": (1e-4,)},
    epochs=(1,),
    bottlenecks=(2, 8),
    tops=(1,),
    batch_size=8,
    max_length=64,
    stride=16,
    train_size=16,
    validation_size=12,
)
PAPER_F1 = {("adapters", 2): 89.9, ("adapters", 64): 90.4, ("full", None): 90.7}  # section 3.5, SQuAD's development set
FILES = {TRAIN: "train-v1.1.json", VALIDATION: "dev-v1.1.json"}
DOCS = Path(__file__).parent / "docs_questions"  # over this project's own documentation, in SQuAD's format
PART_SEED = 0  # parts stay the same over the runs' seeds
ORDER = ("adapters", "top", "full")


def read_tasks(options: Options) -> list[Task]:
    """One task; without --data the questions over this project's documentation.

    --data is a folder with train-v1.1.json and dev-v1.1.json, these files one after the other, or a data set's name for
    `datasets`, as rajpurkar/squad (or the folder of its parquet files).
    """
    name, parts = _read(options.data or (str(DOCS),))
    if options.test_size:
        raise UserError("--test-size: SQuAD's test part is not public, scores are those of its development part")
    both = set(parts[TRAIN].ids) & set(parts[VALIDATION].ids)
    if both:
        raise UserError(f"{parts[VALIDATION].source}: the question {min(both)!r} is in {parts[TRAIN].source} too")
    sizes = {TRAIN: options.train_size, VALIDATION: options.validation_size}
    kept = {part: _cut(rows, sizes[part]) for part, rows in parts.items()}
    return [Task(name, load_kind("question-answering"), [], kept, "f1")]


def _read(data: tuple[str, ...]) -> tuple[str, dict[str, Questions]]:
    path = Path(data[0])
    if len(data) > 2:
        raise UserError(f"--data was given {len(data)} times: expected a folder, two files, or a name for datasets")
    if len(data) == 2:
        return path.stem, dict(zip(FILES, map(read_questions, data)))
    if path.is_file():
        raise UserError(f"--data {path}: expected the development file too, as --data {FILES[VALIDATION]}")
    if not path.exists() and (path.is_absolute() or path.suffix == ".json" or len(path.parts) > 2):
        raise UserError(f"--data {path}: no such file or folder, nor the name of a data set as rajpurkar/squad")
    if path.is_dir() and not any(path.rglob("*.parquet")):
        return path.resolve().name, {part: read_questions(path / file) for part, file in FILES.items()}
    return path.name if path.is_dir() else data[0], dict(zip(FILES, read_hub_questions(data[0])))


def _cut(rows: Questions, size: float | None) -> Questions:
    """A part of this size, of whole contexts."""
    if size is None:
        return rows
    count = round(len(rows) * size) if size < 1 else int(size)
    if not 1 <= count <= len(rows):
        raise UserError(f"{rows.source}: a part of size {size:g} was asked for, it has {len(rows)} questions")
    return split(rows, count, PART_SEED)[0]


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """Adapters and top layers in each of their sizes, and full fine-tuning."""
    own = FINE_TUNING_EPOCHS if options.epochs == PAPER.epochs else options.epochs
    (task,) = tasks
    tuned = [*top_cells(lab, task, options), cell(lab, task, options, "full")]
    cells: list[Cell] = [*adapter_cells(lab, task, options), *(replace(made, epochs=own) for made in tuned)]
    return plan_cells(cells, rows)


def points(rows: Sequence[Row]) -> list[Summary]:
    """A summary for each method and size, in the order of the table."""
    return sorted(summarize(rows), key=lambda own: (ORDER.index(own["method"]), own["bottleneck"] or own["top"] or 0))


def table(result: Result) -> str:
    """A line for each method and size: trained parameters, exact match, F1, and the F1 that the paper has for it."""
    lines = []
    for summary in points(result.rows):
        size = summary["bottleneck"] if summary["method"] == "adapters" else summary["top"]
        theirs = PAPER_F1.get((summary["method"], size))
        lines.append(
            [
                {"adapters": f"adapters, m = {size}", "top": f"top layers, k = {size}"}.get(
                    summary["method"], "full fine-tuning"
                ),
                f"{summary['trained']:,} ({share(summary['trained'] / summary['base_parameters'])})",
                scored(summary, VALIDATION, "exact_match"),
                scored(summary, VALIDATION, "f1"),
                f"{summary['lr']:g}, {summary['epochs']}",
                "" if theirs is None else str(theirs),
            ]
        )
    first = result.rows[0]
    tried = sorted({row["epochs"] for row in result.rows if row["method"] != "adapters"})
    said = (
        f"Epochs of fine-tuning: {', '.join(map(str, tried))}",
        f"Data: {first['task']}, scored on {first['sizes'][VALIDATION]:,} questions of the development part, by which "
        "learning rate and epochs were chosen too, as in the paper; points, mean ± standard error over seeds",
        "The paper's F1 is BERT's on SQuAD v1.1: to be compared with that model and those data alone",
    )
    titles = ["", "trained", "exact match", "F1", "learning rate, epochs", "the paper's F1"]
    return markdown_table(titles, lines) + caption(result.rows, result.options, *said)


def finding(result: Result) -> str:
    """See find.Experiment."""
    found = points(result.rows)
    best = {
        name: sorted((own for own in found if own["method"] == name), key=lambda own: own.validation)[-1:]
        for name in ("adapters", "full")
    }
    return f"F1 on {found[0]['task']}: {means(best, VALIDATION)}"


def figures(result: Result) -> dict[str, Any]:
    """`squad`: F1 against trained parameters, Figure 5."""
    from .figures.squad_figure import curves_figure

    return {"squad": curves_figure(points(result.rows), result)}
