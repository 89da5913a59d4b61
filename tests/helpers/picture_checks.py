"""What holds for every picture: no text is cut off, none runs into another."""

from __future__ import annotations

from itertools import combinations


def unpainted(figure):
    """Labels of ticks outside of their axis' limits."""
    return {
        tick.label1
        for panel in figure.axes
        for axis in (panel.xaxis, panel.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }


def faults(figure):
    """A line for each text that is cut off or runs into another."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in set(figure.findobj(Text)) - unpainted(figure)
        if text.get_visible() and text.get_text().strip() and (text.axes is None or text.axes.get_visible())
    ]
    found = [] if len(boxes) > 10 else [f"only {len(boxes)} texts"]
    for text, box in boxes:
        if not (box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height):
            found.append(f"{text!r} is cut off")
    for (one, a), (other, b) in combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across >= 1.5 and down >= 1.5:
            found.append(f"{one!r} runs into {other!r}")
    return found
