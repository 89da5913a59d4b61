"""Section 3.6 of the paper: what adapters can do without, and how they must begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..common.markdown import markdown_table
from .data import read_tasks
from .grid import texts
from .grid.cells import Cell, Row, Summary, plan_cells, summarize
from .grid.engine import Job
from .grid.lab import Lab
from .grid.methods import cell, number_of_layers
from .grid.options import Options
from .grid.result import Result
from .grid.task import Task
from .grid.wording import caption, measured, percent, scored, share

__all__ = ["COMMAND", "PAPER", "PICTURES", "QUICK", "figures", "finding", "plan", "read_tasks", "table"]

COMMAND = "--model bert-base-uncased --data 20newsgroups"
PICTURES = {
    "spans": "Points lost when the adapters of a span of layers are removed",
    "init": "Accuracy over the initial scale of the adapters",
}
# Section 3.6: m = 64 on MNLI and CoLA; the scale from 1e-7 to 1.
PAPER = replace(
    texts.PAPER,
    rates={"adapters": (3e-4,)},
    epochs=(3,),
    bottlenecks=(64,),
    tops=(),
    init_stds=(1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
)
QUICK = replace(texts.QUICK, bottlenecks=(8,), tops=(), init_stds=(1e-2, 1.0))
PLATEAU = 1e-2  # the scale up to which the paper's scores are level (section 3.6)


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """The adapters as they are, scored over all spans too, and every variant."""
    made = [variant for task in tasks for variant in _cells(lab, task, options)]
    return plan_cells(made, rows)


def _cells(lab: Lab, task: Task, options: Options) -> list[Cell]:
    layers = number_of_layers(lab, task)
    variants: list[dict[str, Any]] = [
        {"spans": True},
        {"sublayers": ("attention",)},
        {"sublayers": ("feed_forward",)},
        {"layer_norms": False},
        *({"layers": tuple(range(layers - count, layers))} for count in _counts(layers)),
        *({"init_std": std} for std in options.init_stds),
    ]
    return [
        cell(lab, task, options, "adapters", bottleneck=size, **variant)
        for size in options.bottlenecks
        for variant in variants
    ]


def _counts(layers: int) -> list[int]:
    """How many of the top layers get adapters: one, a third, two thirds."""
    return sorted({1, max(1, layers // 3), max(1, 2 * layers // 3)} - {layers})


def table(result: Result) -> str:
    """A line for each variant, a column a task; then the initial scales."""
    rows = result.rows
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    found: dict[str, dict[str, Summary]] = {}
    for summary in summarize(rows):
        found.setdefault(_variant(summary), {})[summary["task"]] = summary
    lines = []
    for name, own in found.items():
        first = next(iter(own.values()))
        lines.append(
            [
                name,
                str(first["adapters"]),
                f"{first['trained']:,} ({share(first['trained'] / first['base_parameters'])})",
                *(scored(own.get(task)) for task in tasks),
            ]
        )
    said = [f"Test {measured(rows, each=True)} in points, mean ± standard error over seeds"]
    spans = span_scores(rows)
    lost = []
    for task, scores in spans.items():
        single = max(0.0, *(scores["none"] - scores[f"{i}-{i}"] for i in range(_depth(scores))))
        whole = scores[f"0-{_depth(scores) - 1}"]
        lost.append(
            f"{task}: on validation the adapters of one layer removed cost at most {100 * single:.1f} points, "
            f"all removed leave {100 * whole:.1f} of {100 * scores['none']:.1f}"
        )
    return markdown_table(["", "adapters", "trained", *tasks], lines) + caption(result, *said, *lost)


def _variant(summary: Summary) -> str:
    size = f"m = {summary['bottleneck']}"
    if summary["init_std"] is not None:
        return f"{size}, σ = {summary['init_std']:g}"
    if summary["sublayers"]:
        return f"{size}, behind {'attention' if 'attention' in summary['sublayers'] else 'feed-forward'} only"
    if summary["layers"]:
        count = len(summary["layers"])
        return f"{size}, in the top {'layer' if count == 1 else f'{count} layers'} only"
    return f"{size}, LayerNorms frozen" if not summary["layer_norms"] else f"{size}, as in the paper"


def span_scores(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By task (and m, where there are several), the mean over seeds of the validation score without each span."""
    summaries = [summary for summary in summarize(rows) if summary["spans"]]
    several = len({summary["bottleneck"] for summary in summaries}) > 1
    found: dict[str, dict[str, float]] = {}
    for summary in summaries:
        name = f"{summary['task']}, m = {summary['bottleneck']}" if several else summary["task"]
        own = [row["span_scores"] for row in summary.rows]
        found[name] = {span: float(np.mean([scores[span] for scores in own])) for span in own[0]}
    return found


def _depth(scores: Mapping[str, float]) -> int:
    return 1 + max(int(span.partition("-")[2]) for span in scores if span != "none")


def finding(result: Result) -> str:
    """See find.Experiment."""
    scales: dict[float, list[float]] = {}
    for summary in summarize(result.rows):
        if summary["init_std"] is not None:
            scales.setdefault(summary["init_std"], []).append(summary.mean())
    level = [float(np.mean(own)) for std, own in scales.items() if std <= PLATEAU]
    beyond = {std: float(np.mean(own)) for std, own in scales.items() if std > PLATEAU}
    parts = []
    if level:
        parts.append(
            f"mean {measured(result.rows)} {percent(min(level))} to {percent(max(level))} "
            f"for initial σ up to {PLATEAU:g}"
        )
        parts += [f"{percent(value)} at {std:g}" for std, value in sorted(beyond.items())]
    for task, scores in span_scores(result.rows).items():
        whole = scores[max(scores, key=_width)]
        parts.append(f"{task} without any adapter {percent(whole)} of {percent(scores['none'])} on validation")
    return "; ".join(parts)


def _width(span: str) -> int:
    first, _, last = span.partition("-")
    return int(last) - int(first) if last else -1


def figures(result: Result) -> dict[str, Any]:
    """`spans`: Figure 6's heat map; `init`: Figure 6's right side, the score over the initial scale."""
    from .figures.ablation_figures import init_figure, spans_figure

    scales = [summary for summary in summarize(result.rows) if summary["init_std"] is not None]
    drawn: dict[str, Any] = {}
    if any(row["spans"] for row in result.rows):
        drawn["spans"] = spans_figure(span_scores(result.rows), result)
    if scales:
        drawn["init"] = init_figure(scales, result)
    return drawn
