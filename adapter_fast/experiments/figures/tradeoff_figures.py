"""Figures 1, 3 and 4 of the paper: accuracy against trained parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...common.sheet import WIDTH, sheet
from ..grid.cells import Summary
from ..grid.result import Result
from ..grid.wording import measured
from .method_styles import COLOURS, LABELS, MARKERS, SIZED, origin, parameters_axis

Point = Mapping[str, Any]
ACROSS = 3  # panels


def percentiles_figure(points: Sequence[Point], result: Result) -> Any:
    """Difference to full fine-tuning against trained parameters: the median over tasks, from the 20th to the 80th.

    Args:
        points: a method in one size each, as tradeoff.curve_points gives them; without `deltas` it is left out.
    """
    shown = [point for point in points if point["deltas"]]
    tasks = len({task for point in shown for task in point["summaries"]})
    foot = (
        f"Line or mark: median over {tasks} task{'s' if tasks > 1 else ''}; band or bar: from the 20th to the 80th "
        "percentile. Trained parameters: mean over tasks, heads included. The small figures are m of adapters and k of "
        "top layers. Each task's score is its mean over seeds.",
    )
    title = (
        f"{measured(result.rows).capitalize()} against trained parameters: the distance to full fine-tuning over tasks"
    )
    if not shown:
        figure, axes = sheet((1, 1), (WIDTH, 0.4), title, origin(result), [], ["No task was fine-tuned in full."])
        axes[0, 0].set_axis_off()
        return figure
    figure, axes = sheet((1, 1), (WIDTH, 3.9), title, origin(result), _legend(shown), foot)
    panel = axes[0, 0]
    panel.axhline(0.0, color=COLOURS["full"], lw=1.1, zorder=1)
    for method in MARKERS:
        own = sorted((point for point in shown if point["method"] == method), key=lambda point: point["trained"])
        x = [point["trained"] for point in own]
        low, middle, high = ([point["deltas"][i] for point in own] for i in range(3))
        style: dict[str, Any] = {"color": COLOURS[method], "marker": MARKERS[method], "ms": 4.5, "zorder": 3}
        if method in SIZED:
            panel.fill_between(x, low, high, color=COLOURS[method], alpha=0.16, lw=0)
            panel.plot(x, middle, lw=1.6, **style)
            _sizes(panel, own, middle)
        else:
            bars = [[m - b for m, b in zip(middle, low)], [t - m for m, t in zip(middle, high)]]
            view = panel.get_ylim()
            panel.errorbar(x, middle, bars, ls="", capsize=2, elinewidth=0.9, **style)
            _keep_view(panel, view, method, x, middle)
    parameters_axis(panel)
    panel.set_xlabel("trained parameters a task")
    panel.set_ylabel(f"{measured(result.rows)} less that of full fine-tuning, points")
    return figure


def tasks_figure(points: Sequence[Point], result: Result) -> Any:
    """Each task's accuracy with its standard error over seeds against trained parameters, a panel a task."""
    tasks = list(dict.fromkeys(task for point in points for task in point["summaries"]))
    down = math.ceil(len(tasks) / ACROSS)
    across = math.ceil(len(tasks) / down)
    foot = (
        "Mean over seeds, bars and the band of full fine-tuning: ± standard error. The axis does not start at zero.",
    )
    title = f"{measured(result.rows).capitalize()} against trained parameters, task by task"
    figure, axes = sheet((down, across), (WIDTH, 0.3 + 2.7 * down), title, origin(result), _legend(points), foot)
    for panel in axes.flat[len(tasks) :]:
        panel.set_visible(False)
    for place, (panel, task) in enumerate(zip(axes.flat, tasks)):
        own = [point for point in points if task in point["summaries"]]
        for method in ("full", *MARKERS):
            found = [point["summaries"][task] for point in own if point["method"] == method]
            if found:
                _task_curve(panel, method, sorted(found, key=lambda summary: summary["trained"]))
        panel.set_title(task)
        parameters_axis(panel)
        panel.set_xlabel("trained parameters" if place + across >= len(tasks) else "")
        panel.set_ylabel(f"{measured(result.rows)}, points" if place % across == 0 else "")
    return figure


def _task_curve(panel: Any, method: str, summaries: Sequence[Summary]) -> None:
    y = [100 * summary.mean() for summary in summaries]
    errors = [0.0 if math.isnan(error := summary.spread()) else 100 * error for summary in summaries]
    if method == "full":
        panel.axhline(y[0], color=COLOURS[method], lw=1.1, zorder=1)
        panel.axhspan(y[0] - errors[0], y[0] + errors[0], color=COLOURS[method], alpha=0.12, lw=0)
        return
    x = [summary["trained"] for summary in summaries]
    line = "-" if method in SIZED else ""
    style: dict[str, Any] = {"color": COLOURS[method], "marker": MARKERS[method], "zorder": 3}
    view = panel.get_ylim()
    panel.errorbar(x, y, errors, ls=line, lw=1.5, ms=4, capsize=1.5, elinewidth=0.9, **style)
    if method == "head":
        _keep_view(panel, view, method, x, y)


def _keep_view(panel: Any, view: tuple[float, float], method: str, x: Sequence[float], y: Sequence[float]) -> None:
    """Leave a mark far below all others outside, with an arrow and its value: it would flatten the rest."""
    low, high = view
    if y and panel.has_data() and y[0] < low - 0.5 * (high - low):
        panel.set_ylim(low - 0.1 * (high - low), high)
        panel.annotate(
            f"▼ {LABELS[method]}: {y[0]:.1f}".replace("-", "−"),
            (x[0], 0),
            (-4, 4),
            xycoords=panel.get_xaxis_transform(),
            textcoords="offset points",
            fontsize=7,
            color=COLOURS[method],
        )


def _sizes(panel: Any, points: Sequence[Point], heights: Sequence[float]) -> None:
    """m above the adapters' marks, k below those of the top layers."""
    from matplotlib.patheffects import withStroke

    above = points and points[0]["method"] == "adapters"
    for point, height in zip(points, heights):
        panel.annotate(
            str(point["size"]),
            (point["trained"], height),
            (0, 5 if above else -5),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=6.5,
            color=COLOURS[point["method"]],
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _legend(points: Sequence[Point]) -> list[Any]:
    from matplotlib.lines import Line2D

    present = {point["method"] for point in points}
    lines = [method for method in (*SIZED, "full") if method in present]
    marks = [method for method in MARKERS if method in present and method not in SIZED]
    return [
        Line2D(
            [],
            [],
            color=COLOURS[method],
            marker=MARKERS.get(method),
            ls="-" if method in lines else "",
            label=LABELS[method],
        )
        for method in (*lines, *marks)
    ]
