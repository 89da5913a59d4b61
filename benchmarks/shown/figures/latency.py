"""Latency percentiles of whole models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import (
    MODES,
    adapter_parameters,
    dtypes,
    groups,
    model_size,
    over_bare,
    providers,
)
from adapter_fast.benchmarks.shown.figures.row_sheet import colour, row_sheet, seen
from adapter_fast.benchmarks.shown.wording import label, millions, time_unit
from adapter_fast.common.sheet import WIDTH


def latency_figure(rows: Sequence[Row]) -> Any:
    """Percentiles of each provider, p50 to p99: a panel for each case, the bare model's median as a line."""
    from matplotlib.lines import Line2D

    cases = seen(row.case for row in sorted(rows, key=lambda row: -row.tokens) if row.us_p50)
    modes = [mode for mode in MODES if any(row.mode == mode and row.us_p50 for row in rows)]
    names = providers(row.provider for row in rows)
    faces: dict[str, Any] = {mode: "full" if mode == "eager" else "none" for mode in modes}
    grey: dict[str, Any] = {"color": "#444444", "lw": 1.4}
    legend = [
        Line2D([], [], marker="o", fillstyle=faces[mode], label=f"{MODES[mode]}: p50, p90 (tick), p99 (end)", **grey)
        for mode in modes
    ]
    legend += [Line2D([], [], color="#444444", lw=1.0, ls=":", label="bare model, p50")]
    down = math.ceil(len(cases) / 3)
    figure, axes = row_sheet(
        (down, min(3, len(cases))),
        (WIDTH, down * (0.7 + 0.2 * len(names) * (1.6 if len(modes) > 1 else 1.2))),
        "Latency of a forward pass of the whole model",
        "",
        rows,
        legend,
        "Percent: p50 above the bare model's: under torch.compile for compiled models, of its own transformers for "
        "AdapterHub. The axis does not start at zero.",
        sharey=True,
    )
    for panel in axes.flat[len(cases) :]:
        panel.set_visible(False)
    for panel, case in zip(axes.flat, cases):
        here = [row for row in rows if row.case == case]
        unit, size = time_unit(here)
        _percentiles(panel, here, names, modes, size)
        panel.set_title(_heading(here) + (f", {here[0].dtype}" if len(dtypes(rows)) > 1 else ""))
        panel.set_xlabel(unit)
        panel.set_yticks(range(len(names)), [label(name) for name in names])
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.grid(axis="y", visible=False)
    return figure


def _percentiles(panel: Any, rows: Sequence[Row], names: Sequence[str], modes: Sequence[str], size: float) -> None:
    from matplotlib.ticker import MaxNLocator

    box = {"fc": "w", "ec": "none", "pad": 0.4}  # or the bare model's line would run through a text
    offsets = dict(zip(modes, (-0.2, 0.2))) if len(modes) > 1 else dict.fromkeys(modes, 0.0)
    for (_, _, mode), group in groups(rows).items():
        bare = group.get("bare")
        if bare and bare.us_p50:
            panel.axvline(bare.us_p50 / size, color="#444444", lw=1.0, ls=":", zorder=1)
        for name, row in group.items():
            y = names.index(name) + offsets.get(mode, 0.0)
            marks = [mark / size for mark in (row.us_p50, row.us_p90, row.us_p99) if mark is not None]
            if not marks:
                continue
            style = {"color": colour(name), "zorder": 3}
            panel.plot([marks[0], marks[-1]], [y, y], lw=1.6, **style)
            panel.plot(marks[1:], [y] * len(marks[1:]), ls="", marker="|", ms=5, **style)
            panel.plot(marks[0], y, marker="o", ms=5, mfc=None if mode == "eager" else "w", **style)
            excess = over_bare(row, group)
            if excess is not None:
                note = f"{100 * excess:+.1f} %".replace("-", "−")
                text = {"textcoords": "offset points", "va": "center", "fontsize": 6.5}
                panel.annotate(note, (marks[-1], y), (5, 0), bbox=box, **text)
    for y, name in enumerate(names):
        if not any(row.ran for row in rows if row.provider == name):
            style = {"va": "center", "fontsize": 7, "color": "#777777", "bbox": box}
            panel.text(0.02, y, "not run", transform=panel.get_yaxis_transform(), **style)
    low, high = panel.get_xlim()
    panel.set_xlim(low, high + 0.16 * (high - low))  # room for the last percentage
    panel.xaxis.set_major_locator(MaxNLocator(5))


def _heading(rows: Sequence[Row]) -> str:
    """Batch, length and the parameters of our adapters, as in the LoRA paper's Table 1."""
    size, own = model_size(rows[0].case), adapter_parameters(rows)
    name = f"{size.model}, batch {size.batch}, {size.seq_len} tokens" if size else rows[0].case
    return name + (f"\nadapters of {millions(own)} parameters" if own else "")
