"""Grouped bars by provider: share of the physical floor, and peak memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import MODES, best_mode, floor_share, providers, variant
from adapter_fast.benchmarks.shown.figures.row_sheet import (
    TOKENS,
    colour,
    families_of,
    row_sheet,
    seen,
    short_count,
    swatches,
)
from adapter_fast.common.sheet import WIDTH

LOG_FROM = 40  # a ratio of largest to smallest that a linear axis does not show


def floor_figure(rows: Sequence[Row]) -> Any:
    """The physical floor over the median, in percent: a panel for each phase and d, a group of bars for each case."""

    def share(row: Row) -> float | None:
        part = floor_share(row)
        return None if part is None else 100 * part

    remark = (
        "The floor: the longer of moving the fewest bytes and doing the products, at rates measured in the same run."
    )
    title = "Share of the physical floor"
    figure, panels = _bars(rows, share, title, MODES[best_mode(rows)], "% of the floor", remark)
    for panel in panels:
        panel.set_ylim(0, max(105, panel.get_ylim()[1]))
        panel.axhline(100, color="#333333", lw=0.9)
        for bars in panel.containers:
            if bars.get_label() == "fused":
                panel.bar_label(bars, fmt="%.0f", fontsize=6, padding=1.5)
    return figure


def memory_figure(rows: Sequence[Row]) -> Any:
    """Peak megabytes: a panel for each phase and d, a group of bars for each case."""

    def peak(row: Row) -> float | None:
        return row.peak_bytes / 1e6 if row.peak_bytes else None

    title = "Peak memory of one call, above its inputs"
    remark = "Most memory held at one time, outputs and what the backward keeps included."
    figure, panels = _bars(rows, peak, title, "", "MB", remark)
    for panel in panels:
        heights = [bar.get_height() for bar in panel.patches]
        if max(heights) > LOG_FROM * min(heights):
            panel.set_yscale("log")
            panel.set_ylabel("MB, logarithmic")
    return figure


def _bars(
    rows: Sequence[Row], value: Callable[[Row], float | None], title: str, mode: str, unit: str, remark: str
) -> tuple[Any, list[Any]]:
    """Grouped bars by provider, a panel for each phase and d; the figure and the panels that show something."""
    shown = [row for row in rows if value(row) is not None]
    phases = seen(row.phase for row in shown)
    families = {name: _cases(members) for name, members in families_of(shown).items()}
    figure, axes = row_sheet(
        (len(phases), len(families)),
        (WIDTH, 0.5 + 2.1 * len(phases)),
        title,
        mode,
        rows,
        swatches(providers(row.provider for row in shown)),
        f"{remark} Under the bars: {TOKENS}, and m.",
        width_ratios=[max(2, len(cases)) for cases in families.values()],
        sharey="row",
    )
    drawn = []
    for down, phase in enumerate(phases):
        for across, (family, cases) in enumerate(families.items()):
            panel = axes[down, across]
            here = [row for row in shown if row.phase == phase and row.case in cases]
            panel.set_visible(bool(here))
            places = _axis(panel, cases)
            present = providers(row.provider for row in here)
            thick = 0.84 / max(1, len(present))
            for place, name in enumerate(present):
                mine = [row for row in here if row.provider == name]
                x = [places[row.case] + (place - (len(present) - 1) / 2) * thick for row in mine]
                panel.bar(x, [value(row) for row in mine], thick * 0.92, color=colour(name), label=name)
            panel.set_title(f"{phase}, {family}")
            panel.set_ylabel(unit if across == 0 else "")
            drawn += [panel] if here else []
    return figure, drawn


def _axis(panel: Any, cases: dict[str, Row]) -> dict[str, float]:
    """Where each case stands: T under it, and m under the cases of one m, which stand a little apart."""
    kinds = seen(_kind(row) for row in cases.values())
    places = {case: i + 0.45 * kinds.index(_kind(row)) for i, (case, row) in enumerate(cases.items())}
    for kind in kinds:
        mine = [places[case] for case, row in cases.items() if _kind(row) == kind]
        middle = (mine[0] + mine[-1]) / 2
        where = {"xycoords": panel.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 7}
        panel.annotate(kind, (middle, 0), (0, -14), ha="center", va="top", linespacing=1.1, **where)
    panel.set_xticks(list(places.values()), [short_count(row.tokens) for row in cases.values()])
    panel.set_xlim(-0.6, max(places.values()) + 0.6)
    panel.tick_params(axis="x", length=0)
    panel.grid(axis="x", visible=False)
    return places


def _cases(rows: Sequence[Row]) -> dict[str, Row]:
    """A row of each case, by bottleneck, then tokens; cases of float32 weights after their like."""
    return {row.case: row for row in sorted(rows, key=lambda row: (row.bottleneck, variant(row.case), row.tokens))}


def _kind(row: Row) -> str:
    return f"m {row.bottleneck}" + (f"\n{variant(row.case)}" if variant(row.case) else "").replace(" ", "\n")
