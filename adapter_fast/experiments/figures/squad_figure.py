"""Figure 5 of the paper: F1 of answers against trained parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...common.sheet import WIDTH, sheet
from ..grid.cells import Summary
from ..grid.result import Result
from ..grid.task import VALIDATION
from .method_styles import COLOURS, LABELS, MARKERS, SIZED, origin, parameters_axis

FULL_MARKER = "*"


def curves_figure(points: Sequence[Summary], result: Result) -> Any:
    """F1 and its standard error over seeds: adapters over m, top layers over k, and full fine-tuning.

    Args:
        points: a summary for each method and size.
    """
    from matplotlib.lines import Line2D

    styles: dict[str, dict[str, Any]] = {
        method: {
            "color": COLOURS[method],
            "marker": MARKERS.get(method, FULL_MARKER),
            "ls": "-" if method in SIZED else "",
            "label": LABELS[method],
        }
        for method in dict.fromkeys(point["method"] for point in points)
    }
    foot = (
        "Mean over seeds, bars: ± standard error; learning rate and epochs are the best on these same questions, as in "
        "the paper. The small figures are m of adapters and k of top layers. The axis does not start at zero.",
    )
    data = result.rows[0]["task"].partition(", split")[0]
    title = f"F1 of answers against trained parameters: {data}"
    legend = [Line2D([], [], **style) for style in styles.values()]
    figure, axes = sheet((1, 1), (WIDTH, 3.9), title, origin(result), legend, foot)
    panel = axes[0, 0]
    for method, style in styles.items():
        own = sorted((point for point in points if point["method"] == method), key=lambda point: point["trained"])
        x = [point["trained"] for point in own]
        y = [100 * point.mean(VALIDATION) for point in own]
        # one seed has no spread
        bars = 100 * np.nan_to_num([point.spread(VALIDATION) for point in own])
        panel.errorbar(x, y, bars, lw=1.6, ms=5, capsize=2, elinewidth=0.9, zorder=3, **style)
        for point, height in zip(own, y):
            size = point["bottleneck"] or point["top"] or ""
            place = (point["trained"], height)
            at: dict[str, Any] = {
                "xytext": (-5, 4),
                "textcoords": "offset points",
                "ha": "right",
            }  # above a rising line
            panel.annotate(str(size), place, fontsize=6.5, color=style["color"], **at)
    parameters_axis(panel)
    panel.set_xlabel("trained parameters")
    panel.set_ylabel("F1 on the development part, points")
    return figure
