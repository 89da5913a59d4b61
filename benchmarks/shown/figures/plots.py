"""Pictures of result rows as PNG and SVG, each marked with a digest of the rows it shows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import best_mode, floor_share, groups, speedup
from adapter_fast.benchmarks.shown.figures.bars import floor_figure, memory_figure
from adapter_fast.benchmarks.shown.figures.latency import latency_figure
from adapter_fast.benchmarks.shown.figures.speedup import speedup_figure
from adapter_fast.common.files import write_whole
from adapter_fast.common.sheet import STYLE, picture

PAINTERS: dict[str, Callable[[Sequence[Row]], Any]] = {
    "speedup": speedup_figure,
    "floor": floor_figure,
    "memory": memory_figure,
    "latency": latency_figure,
}
# name → suite, and what the picture shows, in words for those who cannot see it
FIGURES = {
    "speedup": ("op", "speed-up of the fused adapter over the reference against tokens"),
    "floor": ("op", "share of the physical floor that each provider reaches"),
    "memory": ("memory", "peak memory of each provider"),
    "latency": ("latency", "latency percentiles of a forward pass of the whole model with each provider"),
}
_MARK = "rows sha256:"


def draw_plots(
    rows_by_suite: Mapping[str, Sequence[Row]], directory: Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw every figure that the rows allow into `directory`; the files written.

    Args:
        rows_by_suite: rows of one device by suite. formats: of "png" and "svg".
    """
    import matplotlib

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in drawable(rows_by_suite).items():
        with matplotlib.rc_context(STYLE):
            figure = PAINTERS[name](rows)
            for kind in formats:
                written.append(write_whole(directory / f"{name}.{kind}", picture(figure, kind, digest_rows(rows))))
    return written


def drawable(rows_by_suite: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Figure by figure, the rows it shows; a figure with nothing to show is left out."""
    shown = {}
    for name, (suite, _) in FIGURES.items():
        rows = list(rows_by_suite.get(suite, ()))
        if name in ("speedup", "floor"):
            mode = best_mode(rows)
            rows = [row for row in rows if row.mode == mode or not row.ran]
        if name == "speedup":
            rows = [row for row in rows if row.provider in ("fused", "reference", "compile")]
        if _something(name, rows):
            shown[name] = rows
    return shown


def _something(name: str, rows: Sequence[Row]) -> bool:
    if name == "speedup":
        return any(speedup(group.get("reference"), group.get("fused")) for group in groups(rows).values())
    if name == "floor":
        return any(floor_share(row) for row in rows)
    return any(row.peak_bytes if name == "memory" else row.us_p50 for row in rows)


def digest_rows(rows: Sequence[Row]) -> str:
    """sha256 over the rows, which changes with any figure in them."""
    return digest_values([asdict(row) for row in rows])


def digest_values(values: Any) -> str:
    """sha256 over any values that JSON has."""
    return _MARK + hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path) -> str | None:
    """The digest of the rows that a picture was drawn from; None where it carries none."""
    if path.suffix == ".svg":
        found = re.search(rf"{_MARK}[0-9a-f]{{64}}", path.read_text("utf-8"))
        return found[0] if found else None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.info.get("Description")
    except UnidentifiedImageError:
        return None
