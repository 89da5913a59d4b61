"""How tables say scores, shares and sizes, and what stands under each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .cells import Row, Summary
from .result import Result


def percent(value: float, spread: float = math.nan) -> str:
    """A fraction as points with one decimal, with its standard error where there is one."""
    return f"{100 * value:.1f}" + ("" if math.isnan(spread) else f" ± {100 * spread:.1f}")


def signed(points: float) -> str:
    """A difference in points: +0.4, −1.2; a plain 0.0 where nothing is left after rounding."""
    rounded = round(points, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def scored(summary: Summary | None, part: str = "test", metric: str | None = None) -> str:
    """A cell's mean over seeds ± standard error; "not run" without one."""
    return "not run" if summary is None else percent(summary.mean(part, metric), summary.spread(part, metric))


def share(value: float) -> str:
    """A share of parameters in per cent, with the digits that small ones need."""
    return f"{100 * value:.1g} %" if value < 5e-5 else f"{100 * value:.{2 if value < 0.1 else 1}f} %"


def times(value: float) -> str:
    """A total over one model: 1.3×."""
    return f"{value:.2f}×"


def measured(rows: Sequence[Row], each: bool = False) -> str:
    """What a score is: accuracy, where all tasks go by it, else score; with `each`, which each task's is."""
    found: dict[str, str] = {}
    for row in rows:
        found |= row["metrics"] if "metrics" in row else {row["task"]: row["metric"]}
    if {*found.values()} == {"accuracy"}:
        return "accuracy"
    return "score" + (f" ({', '.join(map(' '.join, found.items()))})" if each else "")


def caption(result: Result, *said: str) -> str:
    """Under a table: model, sizes, seeds and machine, then how to read it."""
    rows, options = [row for row in result.rows if "predicts" not in row], result.options
    first = rows[0]
    sizes = sorted({f"{row['sizes']['train']:,}" for row in rows})
    epochs = _with_tasks(", ".join(map(str, options.epochs)), options.task_epochs)
    seeds = _with_tasks(f"{options.seeds} seed{'s' if options.seeds > 1 else ''}", options.task_seeds)
    rates = "; ".join(
        f"{method} {', '.join(f'{rate:g}' for rate in own)}" for method, own in sorted(options.rates.items())
    )
    parts = [
        f"{first['model']}, {first['device']}, torch {first['versions']['torch']}, {first['precision']}",
        f"{' or '.join(sizes)} training examples a task, at most {options.max_length} tokens, "
        f"batch {options.batch_size}",
        f"{seeds}; learning rates tried: {rates}; epochs: {epochs}",
        *said,
    ]
    diverged = sum(row["diverged"] for row in rows)
    parts += [f"{diverged} of {len(rows)} runs diverged"] if diverged else []
    parts += [] if result.finished else ["**Not all runs are finished**"]
    return "\n" + ". ".join(parts) + ".\n"


def _with_tasks(usual: str, own: Mapping[str, Any]) -> str:
    """The usual number, and those of tasks that have their own: 3 seeds (RTE 5)."""
    others = [
        f"{task} {', '.join(map(str, values)) if isinstance(values, tuple) else values}" for task, values in own.items()
    ]
    return f"{usual} ({'; '.join(others)})" if others else usual


def means(by_method: dict[str, list[Summary]], part: str = "test") -> str:
    """ "adapters 78.1 (2.70 % trained), full fine-tuning 78.9 (100 %)": means over tasks."""
    names = {"sizes": "adapters", "top": "top layers", "full": "full fine-tuning", "head": "head only"}
    return ", ".join(
        f"{names.get(method, method)} "
        f"{percent(statistics.fmean(own.mean(part) for own in summaries))} "
        f"({share(statistics.fmean(own['trained'] / own['base_parameters'] for own in summaries))} trained)"
        for method, summaries in by_method.items()
        if summaries
    )


def tasks_of(rows: Sequence[Row]) -> str:
    """How many there are: 1 task, 3 tasks."""
    count = len({row["task"] for row in rows})
    return f"{count} task{'s' if count > 1 else ''}"
