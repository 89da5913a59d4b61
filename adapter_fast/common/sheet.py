"""A figure: title, origin, legend and footnote around a grid of panels; and how a figure becomes a file."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

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
# Okabe and Ito's palette, which the colour-blind can tell apart.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
WIDTH = 10.0  # inches of every figure
DPI = 150
MARGIN = 0.12  # inches
LINE = {12: 0.26, 8.5: 0.19, 8: 0.21, 6.5: 0.14}  # inches from line to line, by font size


def sheet(
    panels: tuple[int, int],
    size: tuple[float, float],
    title: str,
    origin: str,
    legend: Sequence[Any],
    foot: Sequence[str],
    **grid: Any,
) -> tuple[Any, Any]:
    """A figure and its panels, an array [rows, columns] of axes.

    Args:
        panels: how many, down and across. size: of the panels together, across and down, in inches.
        title: what is shown. origin: where and how it was measured. foot: how to read it, a paragraph each.
        legend: matplotlib artists with labels. grid: further arguments of Figure.subplots.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = size[0]
    head = textwrap.wrap(title, int(width * 10.5))
    below = textwrap.wrap(origin, int(width * 14))
    notes = [line for text in foot for line in textwrap.wrap(text, int(width * 19))]
    longest = max((len(artist.get_label()) for artist in legend), default=0)
    columns = max(1, int((width - 2 * MARGIN) / (0.55 + 0.072 * longest)))
    lines = math.ceil(len(legend) / columns)
    top = MARGIN + LINE[12] * len(head) + LINE[8.5] * len(below) + LINE[8] * lines + 0.02
    bottom = MARGIN + LINE[6.5] * len(notes)
    height = size[1] + top + bottom
    inside = (0, bottom / height, 1, size[1] / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=inside, w_pad=0.06, h_pad=0.06))
    axes = figure.subplots(*panels, squeeze=False, **grid)

    def write(text: str, y: float, size: float, **style: Any) -> None:
        figure.text(MARGIN / width, y / height, text, va="top", fontsize=size, linespacing=1.3, **style)

    write("\n".join(head), height - MARGIN, 12, weight="bold")
    write("\n".join(below), height - MARGIN - LINE[12] * len(head), 8.5, color="#444444")
    write("\n".join(notes), bottom, 6.5, color="#555555")
    if legend:
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


def picture(figure: Any, kind: str, mark: str | None = None) -> bytes:
    """The figure as a "png" or "svg" file's content, with `mark` as its description.

    Without date and version of matplotlib: the same rows give the same file.
    """
    metadata: dict[str, str | None] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format=kind, metadata=metadata | ({"Description": mark} if mark else {}))
    return content.getvalue()
