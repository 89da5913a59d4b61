"""Each task's accuracy after every step, a panel a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...common.sheet import PALETTE, WIDTH, sheet
from ..figures.method_styles import origin
from ..grid.result import Result
from .accuracy import SEPARATE, Course

IN_ORDER = {"adapters": "one frozen model, an adapter a task", "sequential": "sequential fine-tuning"}
APART = {"joint": "joint training\non all tasks", SEPARATE: "a fine-tuned\nmodel a task"}
MARKERS = "os^Dv"


def steps_figure(found: Mapping[str, Course], result: Result) -> Any:
    """A line a task from its own step to the last one; beside them the two methods that have no steps.

    Args:
        found: by method.
    """
    from matplotlib.lines import Line2D

    tasks = found[SEPARATE].tasks
    styles: list[dict[str, Any]] = [
        {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4.5}
        for i in range(len(tasks))
    ]
    legend = [Line2D([], [], label=f"{i + 1}: {task}", **style) for i, (task, style) in enumerate(zip(tasks, styles))]
    title = "Tasks learned one after another: accuracy on each after every step"
    foot = ("Mean over seeds; band and bar: lowest and highest seed. The axis does not start at zero.",)
    figure, axes = sheet((1, 3), (WIDTH, 3.0), title, origin(result), legend, foot, sharey=True, width_ratios=[3, 3, 2])
    for panel, (method, name) in zip(axes[0], IN_ORDER.items()):
        for i, style in enumerate(styles):
            steps, scores = np.arange(i, len(tasks)), 100 * found[method].scores[:, i:, i]
            panel.plot(steps, scores.mean(axis=0), lw=1.6, zorder=3, **style)
            panel.fill_between(steps, scores.min(axis=0), scores.max(axis=0), color=style["color"], alpha=0.16, lw=0)
            if i == len(tasks) - 1:  # its band has no width
                _mark(panel, i, scores[:, -1], style)
        panel.set_xticks(range(len(tasks)), [f"{i + 1}" for i in range(len(tasks))])
        panel.set(xlabel="tasks learned", xlim=(-0.3, len(tasks) - 0.7), title=name)
    last = axes[0, 2]
    for place, method in enumerate(APART):
        for i, style in enumerate(styles):
            _mark(last, place + 0.6 * ((i + 0.5) / len(tasks) - 0.5), 100 * found[method].at_end()[:, i], style)
    last.set_xticks(range(len(APART)), list(APART.values()))
    last.set(xlim=(-0.5, len(APART) - 0.5), title="without an order")
    axes[0, 0].set_ylabel("test accuracy, points")
    return figure


def _mark(panel: Any, x: float, scores: np.ndarray, style: Mapping[str, Any]) -> None:
    """The mean over seeds, and a bar over their range."""
    mean = scores.mean()
    panel.errorbar(x, mean, [[mean - scores.min()], [scores.max() - mean]], lw=0, elinewidth=1.2, zorder=3, **style)
