"""Table 1 from rows: the paper's lines, and ours under them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ...common.markdown import markdown_table
from ...tasks.data.glue_tasks import GLUE
from ..grid.cells import Row, Summary, summarize
from ..grid.result import Result
from ..grid.task import TEST
from ..grid.wording import caption, percent, scored, share, times
from .published import COLUMNS, TABLE, Published

FIXED = 64  # the one size of Table 1's last row
FULL_EPOCHS = 3  # BERT's; section 4.1
MISMATCHED = "mismatched"
LEFT_OUT = "WNLI"  # of averages, as the paper and BERT leave it out
BYTES = 4  # a stored parameter's: float32


def chosen(rows: Sequence[Row]) -> dict[str, dict[str, Summary]]:
    """By line of the table, "full", "sizes" (of adapters, the best on validation), "fixed" and "head", tasks' runs."""
    summaries = summarize(row for row in rows if "choose_by" in row)  # predictions are no runs
    lines: dict[str, dict[str, Summary]] = {"full": {}, "sizes": {}, "fixed": {}, "head": {}}
    for summary in summaries:
        task, method = summary["task"], summary["method"]
        if method != "adapters":
            lines[method][task] = summary
            continue
        best = lines["sizes"].get(task)
        if best is None or summary.validation > best.validation:
            lines["sizes"][task] = summary
        if summary["bottleneck"] == FIXED:
            lines["fixed"][task] = summary
    if {summary["bottleneck"] for summary in summaries if summary["method"] == "adapters"} == {FIXED}:
        lines["sizes"] = {}  # no other was tried
    return {name: line for name, line in lines.items() if line}


def table(result: Result) -> str:
    """Table 1: the paper's lines, each with ours under it, and the share of full fine-tuning's score that is kept."""
    runs = [row for row in result.rows if "choose_by" in row]
    lines = chosen(runs)
    run = [task for task in GLUE if any(row["task"] == task for row in runs)]
    columns = [*COLUMNS, *([LEFT_OUT] if LEFT_OUT in run else [])]
    counted = [column for column in COLUMNS if _place(column)[0] in run]
    sizes = sorted({row["bottleneck"] for row in runs if row["method"] == "adapters"})
    several = ", ".join(map(str, sizes)) if "sizes" in lines else TABLE["sizes"].name
    called = {"full": "full", "sizes": several, "fixed": str(FIXED), "head": "head"}
    full, cells = lines.get("full", {}), []
    for name in called:
        own = lines.get(name, {})
        cells += [_published(TABLE[name], columns, counted)] if name in TABLE else []
        cells.append(_ours(name, called[name], own, columns, counted))
        if name in ("sizes", "fixed") and own and full:
            cells.append(_kept(own, full, columns, counted))
    said = (
        "Ours: of each task's development part a third was used to choose by (learning rate, epochs and, in the line "
        "of several, m), and the scores are of the rest, in points, mean ± standard error over seeds; the paper's: "
        "BERT-Large on the hidden test parts, each task's best of five seeds on validation",
        "Matthews correlation for CoLA, F1 for MRPC and QQP, Spearman correlation for STS-B, accuracy for the others",
        "Of full fine-tuning: our score over that of full fine-tuning",
        f"Average: of the columns that were run ({', '.join(counted)}), MNLI's two counted as one, for the paper's "
        "lines as for ours" + (f"; {LEFT_OUT} is left out, as in the paper" if LEFT_OUT in run else ""),
        "The paper's own totals are the leaderboard's scores: "
        + ", ".join(f"{published.score} ({published.name})" for published in TABLE.values()),
        *([f"Full fine-tuning: {FULL_EPOCHS} epochs, as BERT"] if FULL_EPOCHS in result.options.epochs else []),
        f"Total: parameters of all tasks over one model's; the paper's are of nine tasks, ours of {len(run)}. "
        "Trained a task: the share of the base's parameters, and what they take as float32",
        *([] if result.finished else [f"So far {_seeds(lines)}"]),
    )
    return markdown_table(["", "total", "trained a task", *columns, "average"], cells) + caption(result, *said)


def _seeds(lines: Mapping[str, Mapping[str, Summary]]) -> str:
    counts = sorted({len(summary.rows) for line in lines.values() for summary in line.values()})
    return " to ".join(map(str, counts[:: len(counts) - 1 or 1])) + (" seed" if counts == [1] else " seeds")


def _place(column: str) -> tuple[str, str]:
    """The task and the part of a column."""
    if column.startswith("MNLI-"):
        return "MNLI", MISMATCHED if column == "MNLI-mm" else TEST
    return column, TEST


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
    return {"full": "full fine-tuning", "head": "head only"}.get(name, f"adapters, m = {name}")


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
        f"{share(statistics.fmean(trained) / base)} ({BYTES * statistics.fmean(trained) / 1e6:.3g} MB)",
        *cells,
        percent(_average(points, counted)) if complete else "not run",
    ]


def _kept(
    line: Mapping[str, Summary], full: Mapping[str, Summary], columns: Sequence[str], counted: Sequence[str]
) -> list[str]:
    """Each score over full fine-tuning's, and the averages' ratio."""
    points: list[dict[str, float]] = [{}, {}]
    for column in columns:
        task, part = _place(column)
        if task in line and task in full:
            for own, summaries in zip(points, (line, full)):
                own[column] = summaries[task].mean(part)
    ours, whole = points
    ratios = [percent(ours[column] / whole[column]) + " %" if whole.get(column) else "" for column in columns]
    complete = bool(counted) and all(column in ours for column in counted)
    average = percent(_average(ours, counted) / _average(whole, counted)) + " %" if complete else ""
    return ["of full fine-tuning", "", "", *ratios, average]


def _average(points: Mapping[str, float], counted: Sequence[str]) -> float:
    """Over tasks; MNLI's two parts count as one."""
    tasks: dict[str, list[float]] = {}
    for column in counted:
        tasks.setdefault(_place(column)[0], []).append(points[column])
    return statistics.fmean(statistics.fmean(own) for own in tasks.values())
