"""The tables of tasks learned one after another."""

from __future__ import annotations

import numpy as np

from ...common.markdown import markdown_table
from ..grid.result import Result
from ..grid.wording import caption, measured, percent, times
from .accuracy import SEPARATE, Course, courses, mean_and_error

TITLES = {
    "adapters": "one frozen model, an adapter a task",
    "sequential": "sequential fine-tuning",
    "joint": "joint training on all tasks",
    SEPARATE: "a fine-tuned model a task",
}
NONE = "–"


def table(result: Result) -> str:
    """A line a method; then each task's accuracy after every step; then what a task switch takes."""
    found = courses(result.rows)
    methods = [method for method in TITLES if method in found]
    tasks = found[SEPARATE].tasks
    titles = ["", "right after learning", "at the end", "forgotten", *(f"of {task}" for task in tasks[:-1])]
    lines = [_line(method, found[method]) for method in methods]
    said = (
        f"Tasks in this order: {', '.join(tasks)}",
        f"Mean {measured(result.rows, each=True)} over tasks in points, mean ± standard error over seeds",
        f"Forgotten: {measured(result.rows)} right after a task was learned less that after the last task, "
        "over all tasks but the last",
        "Stored in all: parameters over the base's. Base unchanged: sha256 before the first task and after the last, "
        "all adapters removed",
        "Joint training has all data at once, in batches of one task each, drawn in proportion to the tasks' sizes, "
        "with the learning rate and epochs that most tasks have in full fine-tuning",
    )
    text = markdown_table([*titles, "stored in all", "base unchanged"], lines) + caption(result, *said)
    for method in methods:
        if found[method].in_order:
            text += (
                f"\n{measured(result.rows).capitalize()} after each step, {TITLES[method]}:\n\n{_matrix(found[method])}"
            )
    return text + _switch(found["adapters"])


def _line(method: str, course: Course) -> list[str]:
    cells = [_points(course.learned().mean(axis=1)), _points(course.at_end().mean(axis=1))]
    if course.in_order:
        lost = course.forgotten()
        exact = not any(any(row["largest_logit_change"].values()) for row in course.rows)
        cells += [_lost(values, exact) for values in (lost.mean(axis=1), *lost.T)]
    else:
        cells += [NONE] * len(course.tasks)
    return [
        TITLES[method],
        *cells,
        times(stored(method, course) / course.rows[0]["base_parameters"]),
        _base(method, course),
    ]


def stored(method: str, course: Course) -> int:
    """Parameters that all tasks need together."""
    if method == SEPARATE:
        seed = course.rows[0]["seed"]
        return sum(row["trained"] for row in course.rows if row["seed"] == seed)
    row = course.rows[0]
    return row["base_parameters"] + sum(sum(own.values()) for own in row["stored"].values())


def _base(method: str, course: Course) -> str:
    if method == SEPARATE:
        return NONE
    kept = all(row["base_unchanged"] for row in course.rows)
    return f"yes, {course.rows[0]['base_after']}" if kept else "no"


def _points(values: np.ndarray) -> str:
    return percent(*mean_and_error(values))


def _lost(values: np.ndarray, exact: bool) -> str:
    """Zero is said to be exact where not one bit of a logit changed."""
    return "exactly 0" if exact and not values.any() else _points(values)


def _matrix(course: Course) -> str:
    """A line a step, a column a task."""
    lines = []
    for i, task in enumerate(course.tasks):
        scores = [_points(course.scores[:, i, j]) if j <= i else "" for j in range(len(course.tasks))]
        lines.append([f"after {i + 1}: {task}", *scores])
    return markdown_table(["", *course.tasks], lines)


def _switch(course: Course) -> str:
    """Measured on the last step of each seed."""
    measured = [row["switch"] for row in course.rows]
    moved = [size for switch in measured for size in switch["bytes"]]
    whole = max(switch["model_bytes"] for switch in measured)
    milliseconds = float(np.median([switch["milliseconds"] for switch in measured]))
    span = " to ".join(dict.fromkeys(f"{size / 1e6:.2f}" for size in (min(moved), max(moved))))
    return (
        f"\nA task switch changes {span} MB of the {whole / 1e6:.1f} MB that a forward pass reads: adapter, LayerNorms "
        f"and head, measured by comparing all parameters. set_adapter takes {milliseconds:.2f} ms with all adapters in "
        f"the model's memory, median of {sum(switch['switches'] for switch in measured)} switches.\n"
    )
