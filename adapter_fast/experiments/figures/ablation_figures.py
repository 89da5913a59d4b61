"""Figure 6 of the paper: what is lost without the adapters of some layers, and the score over the initial scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...common.sheet import PALETTE, WIDTH, sheet
from ..grid.cells import Summary
from ..grid.result import Result
from ..grid.wording import measured, signed
from .method_styles import origin

CELL, AROUND, NARROW = (0.36, 0.3), 0.65, 4.6  # inches
PLATEAU = 1e-2  # the paper's: robust up to here, worse above (section 3.6)


def spans_figure(span_scores: Mapping[str, Mapping[str, float]], result: Result) -> Any:
    """Heat maps of first against last removed layer: points lost on validation without retraining, a panel a task.

    Args:
        span_scores: by task, the score by "first-last", both removed, and "none".
    """
    changes = {task: _changes(scores) for task, scores in span_scores.items()}
    worst = min(-1e-9, *(float(np.nanmin(change)) for change in changes.values()))
    layers = max(len(change) for change in changes.values())
    side = CELL[0] * layers + AROUND
    down = math.ceil(len(changes) / max(1, int(WIDTH / side)))
    across = math.ceil(len(changes) / down)
    foot = (
        "Change in points of the trained model's score on the validation part, mean over seeds, when the adapters of "
        "layers first to last are removed and nothing is trained again. The diagonal: one layer; the upper right "
        "corner: all of them. Darker is worse, on one scale for all panels. Layer 0 is nearest the embeddings.",
    )
    size = (max(NARROW, side * across), (CELL[1] * layers + AROUND) * down)
    title = "Adapters removed from each span of layers"
    figure, axes = sheet((down, across), size, title, origin(result), [], foot)
    for panel in axes.flat[len(changes) :]:
        panel.set_visible(False)
    for panel, (task, change) in zip(axes.flat, changes.items()):
        panel.imshow(change, cmap="Blues_r", aspect="auto", vmin=1.05 * worst, vmax=0.0)
        for (first, last), value in np.ndenumerate(change):
            if not math.isnan(value):
                shade = "white" if value < 0.5 * worst else "black"
                text = signed(value)
                panel.text(last, first, text, ha="center", va="center", fontsize=6.5, color=shade)
        panel.set_title(f"{task} ({100 * span_scores[task]['none']:.1f} with all)")
        panel.set_xticks(range(len(change)))
        panel.set_yticks(range(len(change)))
        panel.set_xlabel("last removed layer")
        panel.set_ylabel("first removed layer")
        panel.grid(visible=False)
        panel.tick_params(length=0)
        for side in panel.spines.values():
            side.set_visible(False)
    return figure


def _changes(scores: Mapping[str, float]) -> np.ndarray:
    """[first, last] in points; nan below the diagonal."""
    spans = {tuple(map(int, span.split("-"))): score for span, score in scores.items() if span != "none"}
    depth = 1 + max(last for _, last in spans)
    change = np.full((depth, depth), np.nan)
    for place, score in spans.items():
        change[place] = 100 * (score - scores["none"])
    return change


def init_figure(scales: Sequence[Summary], result: Result) -> Any:
    """The score against the initial weights' standard deviation, a line a task and m, with standard errors over seeds.

    Args:
        scales: a summary for each task, m and initial scale.
    """
    from matplotlib.lines import Line2D

    curves: dict[tuple[str, int], list[Summary]] = {}
    for summary in sorted(scales, key=lambda summary: summary["init_std"]):
        curves.setdefault((summary["task"], summary["bottleneck"]), []).append(summary)
    tasks = list(dict.fromkeys(task for task, _ in curves))
    sizes = sorted({size for _, size in curves})
    colours = {task: PALETTE[i % len(PALETTE)] for i, task in enumerate(tasks)}
    styles = {size: ("-", "--", ":", "-.")[i % 4] for i, size in enumerate(sizes)}
    legend = [
        Line2D([], [], color=colours[task], ls=styles[size], marker="o", ms=4, label=f"{task}, m = {size}")
        for task, size in sorted(curves, key=lambda curve: (tasks.index(curve[0]), curve[1]))
    ]
    foot = (
        "Both weights of every adapter begin as a normal distribution of this standard deviation, cut at two of them; "
        "biases at zero. Mean of the test score over seeds, bars: ± standard error.",
    )
    title = "Score over the initial scale of the adapters"
    figure, axes = sheet((1, 1), (WIDTH, 3.6), title, origin(result), legend, foot)
    panel = axes[0, 0]
    for (task, size), own in curves.items():
        errors = [0.0 if math.isnan(error := summary.spread()) else 100 * error for summary in own]
        panel.errorbar(
            [summary["init_std"] for summary in own],
            [100 * summary.mean() for summary in own],
            errors,
            color=colours[task],
            ls=styles[size],
            marker="o",
            ms=4,
            lw=1.5,
            capsize=2,
            elinewidth=0.9,
        )
    panel.set_xscale("log")
    panel.margins(y=0.14)
    panel.axvline(PLATEAU, color="#666666", lw=0.9, ls=":", zorder=1)
    panel.annotate(
        "the paper: level up to here, worse beyond",
        (PLATEAU, 1.0),
        (-4, -3),
        xycoords=panel.get_xaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7,
        color="#444444",
    )
    panel.set_xlabel("standard deviation σ of the initial weights")
    panel.set_ylabel(f"{measured(result.rows)}, points")
    return figure
