"""Section 3.5 and Figure 5 of the paper: SQuAD v1.1, adapters over m against fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.markdown import markdown_table
from ..tasks.data.questions import Questions, read_articles, read_questions
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
COLUMNS = ("ids", "questions", "contexts", "answers")
SPLITS = 3  # of a single file
PART_SEED = 0  # parts stay the same over the runs' seeds
ORDER = ("adapters", "top", "full")


def read_tasks(options: Options) -> list[Task]:
    """The task; without --data the questions over this project's documentation.

    --data is a folder with train-v1.1.json and dev-v1.1.json, these files one after the other, or a data set's name for
    `datasets`, as rajpurkar/squad (or the folder of its parquet files). One file alone, such as XQuAD's, is cut by
    article in three ways, which are three tasks.
    """
    if options.test_size:
        raise UserError("--test-size: SQuAD's test part is not public, scores are those of its development part")
    sizes = {TRAIN: options.train_size, VALIDATION: options.validation_size}
    tasks = []
    for name, parts in _read(options.data or (str(DOCS),)):
        both = set(parts[TRAIN].ids) & set(parts[VALIDATION].ids)
        if both:
            raise UserError(f"{parts[VALIDATION].source}: the question {min(both)!r} is in {parts[TRAIN].source} too")
        kept = {part: _cut(rows, sizes[part]) for part, rows in parts.items()}
        tasks.append(Task(name, load_kind("question-answering"), [], kept, "f1"))
    options.check_tasks([task.name for task in tasks])
    return tasks


def _read(data: tuple[str, ...]) -> list[tuple[str, dict[str, Questions]]]:
    path = Path(data[0])
    if len(data) == 1 and path.is_file():
        return [(f"{path.stem}, split {seed + 1}", _cut_articles(path, seed)) for seed in range(SPLITS)]
    return [_read_parts(data, path)]


def _cut_articles(path: Path, seed: int) -> dict[str, Questions]:
    """Three quarters of the articles to train on and the others to be scored, each in the file's order."""
    from sklearn.model_selection import train_test_split

    articles = read_articles(path)
    if len(articles) < 4:
        raise UserError(f"--data {path} has {len(articles)} articles: expected 4 or more to cut, or a second file")
    chosen = train_test_split(range(len(articles)), test_size=0.25, random_state=seed)
    return {part: _joined([articles[i] for i in sorted(own)]) for part, own in zip(FILES, chosen)}


def _joined(articles: list[Questions]) -> Questions:
    columns = [[row for own in articles for row in getattr(own, name)] for name in COLUMNS]
    return Questions(articles[0].source, *columns, notices=articles[0].notices)


def _read_parts(data: tuple[str, ...], path: Path) -> tuple[str, dict[str, Questions]]:
    if len(data) > 2:
        raise UserError(f"--data was given {len(data)} times: expected a folder, two files, or a name for datasets")
    if len(data) == 2:
        return path.stem, dict(zip(FILES, map(read_questions, data)))
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
    cells: list[Cell] = []
    for task in tasks:
        tuned = [*top_cells(lab, task, options), cell(lab, task, options, "full")]
        cells += [*adapter_cells(lab, task, options), *(replace(made, epochs=own) for made in tuned)]
    return plan_cells(cells, rows)


def points(rows: Sequence[Row]) -> list[Summary]:
    """A summary for each method and size, over all splits and seeds, in the order of the table."""
    found: dict[tuple[int, int], list[Summary]] = {}
    for own in summarize(rows):
        found.setdefault((ORDER.index(own["method"]), own["bottleneck"] or own["top"] or 0), []).append(own)
    return [
        Summary([row for own in found[place] for row in own.rows], max(own.tried for own in found[place]))
        for place in sorted(found)
    ]


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
                "; ".join(dict.fromkeys(f"{row['lr']:g}, {row['epochs']}" for row in summary.rows)),
                "" if theirs is None else str(theirs),
            ]
        )
    names = list(dict.fromkeys(row["task"] for row in result.rows))
    sizes = [f"{row['sizes'][VALIDATION]:,}" for row in {row["task"]: row for row in result.rows}.values()]
    tried = sorted({row["epochs"] for row in result.rows if row["method"] != "adapters"})
    said = (
        f"Epochs of fine-tuning: {', '.join(map(str, tried))}",
        f"Data: {'; '.join(names)}, scored on {', '.join(sizes)} questions of the development part, by which learning "
        "rate and epochs were chosen too, as in the paper; points, mean ± standard error over "
        + ("seeds" if len(names) == 1 else "splits and seeds"),
        "The paper's F1 is BERT's on SQuAD v1.1: to be compared with that model and those data alone",
    )
    titles = ["", "trained", "exact match", "F1", "learning rate, epochs", "the paper's F1"]
    return markdown_table(titles, lines) + caption(result, *said)


def finding(result: Result) -> str:
    """See find.Experiment."""
    found = points(result.rows)
    best = {
        name: sorted((own for own in found if own["method"] == name), key=lambda own: own.validation)[-1:]
        for name in ("adapters", "full")
    }
    names = dict.fromkeys(row["task"].partition(", split")[0] for row in result.rows)
    return f"F1 on {', '.join(names)}: {means(best, VALIDATION)}"


def figures(result: Result) -> dict[str, Any]:
    """`squad`: F1 against trained parameters, Figure 5."""
    from .figures.squad_figure import curves_figure

    return {"squad": curves_figure(points(result.rows), result)}
