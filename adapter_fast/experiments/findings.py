"""What an experiment found, in one sentence of figures, computed from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from adapter_fast.experiments import ablation, classification, glue, squad, tradeoff
from adapter_fast.experiments.grid.cells import Summary, summarize
from adapter_fast.experiments.grid.result import Result
from adapter_fast.experiments.grid.task import VALIDATION
from adapter_fast.experiments.grid.wording import percent, share, signed
from adapter_fast.experiments.sequential.accuracy import courses

NEAR = 1.0  # points of full fine-tuning that count as close to it
PLATEAU = 1e-2  # the scale up to which the paper's scores are level (section 3.6)


def finding(result: Result) -> str:
    """The sentence; says itself what is missing of the runs it needs."""
    sayings: dict[str, Callable[[Result], str]] = {
        "glue": _glue,
        "classification": _classification,
        "squad": _squad,
        "tradeoff": _tradeoff,
        "sequential": _sequential,
        "ablation": _ablation,
    }
    return sayings[result.experiment](result)


def _means(by_method: dict[str, list[Summary]], part: str = "test") -> str:
    """ "adapters 78.1 (2.70 % trained), full fine-tuning 78.9 (100 %)": means over tasks."""
    names = {"sizes": "adapters", "adapters": "adapters", "top": "top layers", "full": "full fine-tuning"}
    return ", ".join(
        f"{names.get(method, classification.COLUMNS.get(method))} "
        f"{percent(statistics.fmean(own.mean(part) for own in summaries))} "
        f"({share(statistics.fmean(own['trained'] / own['base_parameters'] for own in summaries))} trained)"
        for method, summaries in by_method.items()
        if summaries
    )


def _glue(result: Result) -> str:
    lines = glue.chosen(result.rows)
    found = {name: list(lines.get(name, {}).values()) for name in ("sizes", "full")}
    return f"means over {_count(result)} on validation: {_means(found, VALIDATION)}"


def _classification(result: Result) -> str:
    best = classification.best_of(result.rows).values()
    found = {name: [own[name] for own in best if name in own] for name in ("adapters", "full", "top", "head")}
    return f"mean accuracy over {_count(result)}: {_means(found)}"


def _squad(result: Result) -> str:
    found = squad.points(result.rows)
    best = {
        name: sorted((own for own in found if own["method"] == name), key=lambda own: own.validation)[-1:]
        for name in ("adapters", "full")
    }
    return f"F1 on {found[0]['task']}: {_means(best, VALIDATION)}"


def _tradeoff(result: Result) -> str:
    points = [
        point for point in tradeoff.curve_points(result.rows) if point["method"] == "adapters" and point["deltas"]
    ]
    if not points:
        return "no adapters beside full fine-tuning"
    near = min(
        (point for point in points if point["deltas"][1] >= -NEAR), key=lambda point: point["trained"], default=None
    )
    if near is None:
        best = max(points, key=lambda point: point["deltas"][1])
        return f"no m comes within {NEAR:g} point of full fine-tuning; the best, m = {best['size']}, {_median(best)}"
    return (
        f"the smallest adapters within {NEAR:g} point of full fine-tuning have m = {near['size']} "
        f"({share(near['share'])} trained): {_median(near)}"
    )


def _median(point: dict[str, list[float]]) -> str:
    return f"{signed(point['deltas'][1])} points, median over tasks"


def _sequential(result: Result) -> str:
    found = courses(result.rows)
    names = {"adapters": "an adapter a task", "sequential": "sequential fine-tuning"}
    lost = {name: found[name].forgotten().mean() for name in names if name in found}
    return (
        f"points forgotten, mean over the {found['adapters'].scores.shape[2] - 1} tasks that others came after: "
        + ", ".join(f"{names[name]} {100 * value:.1f}" for name, value in lost.items())
    )


def _ablation(result: Result) -> str:
    scales: dict[float, list[float]] = {}
    for summary in summarize(result.rows):
        if summary["init_std"] is not None:
            scales.setdefault(summary["init_std"], []).append(summary.mean())
    level = [float(np.mean(own)) for std, own in scales.items() if std <= PLATEAU]
    beyond = {std: float(np.mean(own)) for std, own in scales.items() if std > PLATEAU}
    parts = []
    if level:
        parts.append(f"mean accuracy {percent(min(level))} to {percent(max(level))} for initial σ up to {PLATEAU:g}")
        parts += [f"{percent(value)} at {std:g}" for std, value in sorted(beyond.items())]
    for task, scores in ablation.span_scores(result.rows).items():
        whole = scores[max(scores, key=_width)]
        parts.append(f"{task} without any adapter {percent(whole)} of {percent(scores['none'])} on validation")
    return "; ".join(parts)


def _width(span: str) -> int:
    first, _, last = span.partition("-")
    return int(last) - int(first) if last else -1


def _count(result: Result) -> str:
    count = len({row["task"] for row in result.rows})
    return f"{count} task{'s' if count > 1 else ''}"
