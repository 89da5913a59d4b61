"""The picture of a breakdown: one stacked bar a layer."""

from __future__ import annotations

import io
from pathlib import PurePath

from .breakdown import PARTS
from .measured import Profile

LABELS = {part: part.replace("feed_forward", "feed-forward").replace("_", " ") for part in PARTS}
# Sub-layers pale, adapters strong; told apart by those who see no red or green too.
COLOURS = dict(zip(PARTS, ("#9ecae1", "#08519c", "#fdd0a2", "#d94801", "#d9d9d9")))
BAR, FRAME = 0.27, 2.1  # inches of a layer, and of title, legend and axis together


def short_name(model: str) -> str:
    """A model's name as typed; of a path its last folder."""
    return PurePath(model).name if PurePath(model).is_absolute() or model.startswith(".") else model


def draw_breakdown(profile: Profile, suffix: str) -> bytes:
    """The breakdown as an image file's bytes; suffix: "png" or "svg"."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    request, layers = profile.request, profile.breakdown.layers
    figure = Figure(figsize=(9.6, FRAME + BAR * max(len(layers), 4)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    left = [0.0] * len(layers)
    for part in PARTS:
        widths = [max(0.0, layer.parts[part]) for layer in layers]
        axes.barh(range(len(layers)), widths, left=left, height=0.72, color=COLOURS[part], label=LABELS[part])
        left = [start + width for start, width in zip(left, widths)]
    step = -(-len(layers) // 24)
    axes.set_yticks(range(0, len(layers), step), [f"layer {index}" for index in range(0, len(layers), step)])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(f"µs of {profile.clock}, median of {profile.breakdown.forwards} traced eager forwards")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.02)
    figure.suptitle(
        f"{short_name(request.model)} with adapters, m = {profile.about['bottleneck']}: "
        f"batch {request.batch} × {request.seq_len}, T = {request.tokens:,} tokens, {request.dtype}\n"
        f"{profile.about['device']}",
        fontsize="medium",
    )
    figure.legend(loc="outside lower center", ncols=len(PARTS), frameon=False, fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format=suffix, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return file.getvalue()
