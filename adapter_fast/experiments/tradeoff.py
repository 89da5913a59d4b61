"""Figures 1, 3 and 4 of the paper: accuracy against trained parameters."""

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
from .grid.methods import adapter_cells, cell, top_cells
from .grid.options import Options
from .grid.result import Result
from .grid.task import Task
from .grid.wording import caption, measured, scored, share, signed

__all__ = ["COMMAND", "PAPER", "PICTURES", "QUICK", "figures", "finding", "plan", "read_tasks", "table"]

COMMAND = "--model bert-base-uncased --data 20newsgroups"
PICTURES = {
    "tradeoff": "Accuracy less that of full fine-tuning against trained parameters, over tasks",
    "tradeoff-tasks": "Accuracy of each task against trained parameters",
}
# Section 3.4: adapter sizes 2^n for n = 0 … 9; the rest as in section 3.3.
PAPER = replace(texts.PAPER, bottlenecks=tuple(2**n for n in range(10)))
QUICK = texts.QUICK
NEAR = 1.0  # points of full fine-tuning that count as close to it
PERCENTILES = (20, 50, 80)  # over tasks, as Figures 1 and 3 draw them
CURVES = {"adapters": "adapters over m", "top": "top layers over k", "layer-norms": "LayerNorms and head"}


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """The runs of `classification`, which are shared, and LayerNorms alone."""
    return plan_cells(cells(lab, tasks, options), rows)


def cells(lab: Lab, tasks: Sequence[Task], options: Options) -> list[Cell]:
    """Every task with every method in each of its sizes."""
    return [
        made
        for task in tasks
        for made in (
            *(cell(lab, task, options, method) for method in ("head", "layer-norms", "full")),
            *top_cells(lab, task, options),
            *adapter_cells(lab, task, options),
        )
    ]


def table(result: Result) -> str:
    """A line for each method and size: trained parameters, accuracy a task, the percentiles of the distance to full."""
    points = curve_points(result.rows)
    tasks = list(dict.fromkeys(row["task"] for row in result.rows))
    lines = [
        [
            point["name"],
            f"{point['trained']:,.0f} ({share(point['share'])})",
            *(scored(point["summaries"].get(task)) for task in tasks),
            " / ".join(signed(value) for value in point["deltas"]),
        ]
        for point in points
    ]
    said = (
        f"Test {measured(result.rows, each=True)} in points, mean ± standard error over seeds",
        "Trained parameters: mean over tasks, and over the base's",
        "Against full: 20th / 50th / 80th percentile over tasks of the difference to full fine-tuning, in points",
    )
    return markdown_table(["", "trained", *tasks, "against full"], lines) + caption(result, *said)


def curve_points(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Method by method and by size: name, trained parameters, summaries by task, percentiles against full."""
    by_name: dict[tuple[str, int], dict[str, Summary]] = {}
    for summary in summarize(rows):
        size = summary["bottleneck"] or summary["top"] or 0
        by_name.setdefault((summary["method"], size), {})[summary["task"]] = summary
    full = by_name.get(("full", 0), {})
    order = ["head", *CURVES, "full"]
    points = []
    for (method, size), own in sorted(by_name.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        trained = float(np.mean([summary["trained"] for summary in own.values()]))
        deltas = [100 * (summary.mean() - full[task].mean()) for task, summary in own.items() if task in full]
        points.append(
            {
                "method": method,
                "size": size,
                "name": _name(method, size),
                "trained": trained,
                "share": trained / next(iter(own.values()))["base_parameters"],
                "summaries": own,
                "deltas": [float(value) for value in np.percentile(deltas, PERCENTILES)] if deltas else [],
            }
        )
    return points


def _name(method: str, size: int) -> str:
    names = {"head": "head only", "layer-norms": CURVES["layer-norms"], "full": "full fine-tuning"}
    return names.get(method) or (f"adapters, m = {size}" if method == "adapters" else f"top layers, k = {size}")


def finding(result: Result) -> str:
    """See find.Experiment."""
    points = [point for point in curve_points(result.rows) if point["method"] == "adapters" and point["deltas"]]
    if not points:
        return "no adapters beside full fine-tuning"
    near = min(
        (point for point in points if point["deltas"][1] >= -NEAR), key=lambda point: point["trained"], default=None
    )
    if near is None:
        best = max(points, key=lambda point: point["deltas"][1])
        return f"no m comes within {NEAR:g} point of full fine-tuning; the best, m = {best['size']}, {_median(best)}"
    return (
        f"the smallest adapters within {NEAR:g} point of full fine-tuning have m = {near['size']} "
        f"({share(near['share'])} trained): {_median(near)}"
    )


def _median(point: dict[str, list[float]]) -> str:
    return f"{signed(point['deltas'][1])} points, median over tasks"


def figures(result: Result) -> dict[str, Any]:
    """`tradeoff`: percentiles over tasks; `tradeoff-tasks`: each task's own curves with their standard errors."""
    from .figures.tradeoff_figures import percentiles_figure, tasks_figure

    points = curve_points(result.rows)
    return {"tradeoff": percentiles_figure(points, result), "tradeoff-tasks": tasks_figure(points, result)}
