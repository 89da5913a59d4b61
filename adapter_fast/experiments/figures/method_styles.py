"""The methods in pictures: a colour, a marker and a name each, the same in every plot; and what every plot says."""

from __future__ import annotations

from typing import Any

from ...common.sheet import PALETTE
from ..grid.result import Result

COLOURS = {"adapters": PALETTE[0], "top": PALETTE[1], "layer-norms": PALETTE[2], "head": PALETTE[3], "full": PALETTE[6]}
MARKERS = {"adapters": "o", "top": "s", "layer-norms": "D", "head": "^"}
LABELS = {
    "adapters": "adapters over m",
    "top": "top layers over k",
    "layer-norms": "LayerNorms and head",
    "head": "head only",
    "full": "full fine-tuning",
}
SIZED = ("adapters", "top")  # methods with a size


def origin(result: Result) -> str:
    """Model, machine, sizes and seeds, under a plot's title."""
    first = result.rows[0]
    sizes = sorted({row["sizes"]["train"] for row in result.rows})
    texts = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    seeds = len({row["seed"] for row in result.rows})
    return (
        f"{first['model']}, {first['device']}, torch {first['versions']['torch']}; {texts} training examples a task, "
        f"{seeds} seed{'s' if seeds > 1 else ''}"
    )


def parameters_axis(panel: Any) -> None:
    """A logarithmic axis of trained parameters, in 10 k, 1 M."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(10))
    panel.xaxis.set_major_formatter(EngFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())
