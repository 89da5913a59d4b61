"""A figure: title, origin, legend and footnote around a grid of panels; and the colour of each provider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import dtypes, model_size, provider_of
from adapter_fast.benchmarks.shown.wording import absences, label, measured_on, measured_with
from adapter_fast.common.sheet import sheet as general_sheet

TOKENS = "tokens T (k = 1024)"


def colour(provider: str) -> str:
    """The same for a provider in every plot."""
    return provider_of(provider).colour


def row_sheet(
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
    origin = measured_on(rows) + (f"; {mode}" if mode else "")
    return general_sheet(panels, size, title, origin, legend, (remark, *absences(rows), measured_with(rows)), **grid)


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


def short_count(tokens: int) -> str:
    """128, 2k, 64k."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def seen(values: Any) -> list[Any]:
    """Each once, in the order of first sight."""
    return list(dict.fromkeys(values))
