"""A figure: title, origin, legend and footnote around a grid of panels; and the colour of each provider."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from adapter_fast.benchmarks.compare import dtypes, model_size
from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.wording import absences, label, machine, versions

# Okabe and Ito's palette, which the colour-blind can tell apart; greys for what is no peer; one wine red of Tol's.
COLOURS = {
    "fused": "#D55E00",
    "fused-balanced": "#B04A00",
    "fused-lean": "#7A3300",
    "fused-compile": "#E69F00",
    "reference": "#6E6E6E",
    "two-kernel": "#56B4E9",
    "compile": "#0072B2",
    "adapterhub": "#009E73",
    "adapter-l": "#882255",
    "peft-lora": "#CC79A7",
    "peft-lora-merged": "#F0E442",
    "full": "#000000",
    "bare": "#B4B4B4",
    "bare-compile": "#8A8A8A",
    "adapterhub-bare": "#C8C8C8",
}
OTHER = "#666633"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: searchable, and small
    "svg.hashsalt": "adapter_fast",
}
WIDTH = 10.0  # inches of every figure
MARGIN = 0.12  # inches
TOKENS = "tokens T (k = 1024)"
LINE = {12: 0.26, 8.5: 0.19, 8: 0.21, 6.5: 0.14}  # inches from line to line, by font size


def colour(provider: str) -> str:
    """The same for a provider in every plot."""
    return COLOURS.get(provider, OTHER)


def sheet(
    panels: tuple[int, int],
    size: tuple[float, float],
    title: str,
    mode: str,
    rows: Sequence[Row],
    legend: Sequence[Any],
    remark: str,
    **grid: Any,
) -> tuple[Any, Any]:
    """A figure and its panels, an array [rows, columns] of axes.

    Args:
        panels: how many, down and across. size: of the panels together, across and down, in inches.
        title: what is shown. mode: how it was run, or "".
        rows: all that were measured for it, to name machine, versions and who did not run.
        legend: matplotlib artists with labels. remark: how to read it. grid: further arguments of Figure.subplots.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = size[0]
    head = textwrap.wrap(title, int(width * 10.5))
    origin = textwrap.wrap(machine(rows) + (f"; {mode}" if mode else ""), int(width * 14))
    foot = [line for text in (remark, *absences(rows), versions(rows)) for line in textwrap.wrap(text, int(width * 19))]
    columns = max(1, int((width - 2 * MARGIN) / (0.55 + 0.072 * max(len(artist.get_label()) for artist in legend))))
    lines = math.ceil(len(legend) / columns)
    top = MARGIN + LINE[12] * len(head) + LINE[8.5] * len(origin) + LINE[8] * lines + 0.02
    bottom = MARGIN + LINE[6.5] * len(foot)
    height = size[1] + top + bottom
    inside = (0, bottom / height, 1, size[1] / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=inside, w_pad=0.06, h_pad=0.06))
    axes = figure.subplots(*panels, squeeze=False, **grid)

    def write(text: str, y: float, size: float, **style: Any) -> None:
        figure.text(MARGIN / width, y / height, text, va="top", fontsize=size, linespacing=1.3, **style)

    write("\n".join(head), height - MARGIN, 12, weight="bold")
    write("\n".join(origin), height - MARGIN - LINE[12] * len(head), 8.5, color="#444444")
    write("\n".join(foot), bottom, 6.5, color="#555555")
    figure.legend(
        handles=legend,
        loc="upper left",
        bbox_to_anchor=((MARGIN + 0.03) / width, 1 - (top - LINE[8] * lines - 0.02) / height),
        ncols=columns,
        frameon=False,
        borderaxespad=0.0,
        borderpad=0.0,
        handlelength=1.8,
        labelspacing=0.4,
        columnspacing=1.4,
    )
    return figure, axes


def swatches(names: Iterable[str]) -> list[Any]:
    """A legend's entry for each provider."""
    from matplotlib.patches import Patch

    return [Patch(color=colour(name), label=label(name)) for name in names]


def families_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of one hidden size, dtype and model, by the name of what they share; the smallest d first."""
    several = len(dtypes(rows)) > 1
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.dtype, row.hidden)):
        size = model_size(row.case)
        parts = [size.model if size else "", f"d = {row.hidden}", row.dtype if several else ""]
        found.setdefault(", ".join(filter(None, parts)), []).append(row)
    return found


def short(tokens: int) -> str:
    """128, 2k, 64k."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def seen(values: Any) -> list[Any]:
    """Each once, in the order of first sight."""
    return list(dict.fromkeys(values))
