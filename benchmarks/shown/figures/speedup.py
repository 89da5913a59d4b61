"""Speed-up over the reference against tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import MODES, best_mode, groups, speedup, variant
from adapter_fast.benchmarks.shown.figures.row_sheet import TOKENS, families_of, row_sheet, seen, short_count
from adapter_fast.common.sheet import WIDTH


def speedup_figure(rows: Sequence[Row]) -> Any:
    """Reference's time over ours against tokens: a panel for each d and phase, a line for each m."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    phases, families = seen(row.phase for row in rows), families_of(rows)
    kinds = sorted({(row.bottleneck, variant(row.case)) for row in rows})
    bottlenecks = sorted({m for m, _ in kinds})
    shade = {m: colormaps["viridis"](0.08 + 0.74 * i / max(1, len(bottlenecks) - 1)) for i, m in enumerate(bottlenecks)}
    marks = dict(zip(seen(kind for _, kind in kinds), "osD^"))
    found = {
        place: group for place, group in groups(rows).items() if speedup(group.get("reference"), group.get("fused"))
    }
    peer = any(speedup(group["reference"], group.get("compile")) for group in found.values())
    legend = [
        Line2D([], [], color=shade[m], marker=marks[kind], label=f"fused, m = {m}" + (f", {kind}" if kind else ""))
        for m, kind in kinds
    ]
    if peer:
        legend.append(Line2D([], [], color="#444444", ls="--", marker="o", mfc="w", label="torch.compile, same m"))
    figure, axes = row_sheet(
        (len(families), len(phases)),
        (WIDTH, 0.4 + 2.5 * len(families)),
        "Speed-up over the reference (plain PyTorch)",
        MODES[best_mode(rows)],
        rows,
        legend,
        "Reference's median over ours, above 1 is faster. Bars: our p20 to p80 against the reference's median.",
        sharex=True,
        sharey=True,
    )
    tokens = sorted({row.tokens for row in rows})
    for down, (family, members) in enumerate(families.items()):
        names = {row.case for row in members}
        for across, phase in enumerate(phases):
            panel = axes[down, across]
            panel.axhline(1.0, color="#333333", lw=0.9, zorder=1)
            for place, (m, kind) in enumerate(kinds):
                here = [
                    group
                    for (case, p, _), group in found.items()
                    if p == phase and case in names and (group["fused"].bottleneck, variant(case)) == (m, kind)
                ]
                aside = 2 ** (0.09 * (place - (len(kinds) - 1) / 2))  # side by side where several m have the same T
                _line(panel, here, "compile", aside, color=shade[m], ls="--", lw=1.1, marker=marks[kind], mfc="w", ms=4)
                _line(panel, here, "fused", aside, color=shade[m], lw=1.6, marker=marks[kind], ms=4.5, zorder=3)
            panel.set_title(f"{phase}, {family}")
            panel.set_xscale("log", base=2)
            panel.set_xticks(tokens, [short_count(T) for T in tokens])
            panel.set_xlim(tokens[0] / 1.6, tokens[-1] * 1.6)
            panel.minorticks_off()
            panel.set_xlabel(TOKENS if down == len(families) - 1 else "")
            panel.set_ylabel("times the reference's speed" if across == 0 else "")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(min(0.9, low), max(1.1, high))
    return figure


def _line(panel: Any, here: Sequence[dict[str, Row]], provider: str, aside: float, **style: Any) -> None:
    points = []
    for group in here:
        ratio, row = speedup(group["reference"], group.get(provider)), group.get(provider)
        if ratio and row and row.us_p50:
            low, high = (row.us_p50 / (mark or row.us_p50) for mark in (row.us_p80, row.us_p20))
            points.append((row.tokens * aside, ratio, ratio * (1 - low), ratio * (high - 1)))
    if points:
        x, y, below, above = zip(*sorted(points))
        bars = {"yerr": (below, above), "elinewidth": 0.9, "capsize": 1.5} if provider == "fused" else {}
        panel.errorbar(x, y, **bars, **style)
