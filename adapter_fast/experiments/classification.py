"""Table 2 of the paper: labelled text sets, adapters against head only, top-layer and full fine-tuning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ..common.markdown import markdown_table
from .data import read_tasks
from .grid.cells import Row, Summary, plan_cells, summarize
from .grid.engine import Job
from .grid.lab import Lab
from .grid.methods import adapter_cells, cell, top_cells
from .grid.options import Options
from .grid.result import Result
from .grid.task import Task
from .grid.texts import PAPER, QUICK
from .grid.wording import caption, means, measured, percent, scored, share, tasks_of, times

__all__ = ["COMMAND", "PAPER", "PICTURES", "QUICK", "figures", "finding", "plan", "read_tasks", "table"]

COMMAND = "--model bert-base-uncased --data 20newsgroups"
PICTURES: dict[str, str] = {}
COLUMNS = {"head": "head only", "full": "full fine-tuning", "top": "top layers", "adapters": "adapters"}
SHARED = ("head", "adapters")  # methods whose tasks all keep the base as it is


def plan(lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, Row]) -> Sequence[Job]:
    """Every task with every method; adapters and top layers in each of their sizes."""
    cells = [
        made
        for task in tasks
        for made in (
            *(cell(lab, task, options, method) for method in ("head", "full")),
            *top_cells(lab, task, options),
            *adapter_cells(lab, task, options),
        )
    ]
    return plan_cells(cells, rows)


def table(result: Result) -> str:
    """Table 2's columns: a line a task, the mean over tasks, the parameters stored and trained."""
    chosen = best_of(result.rows)
    methods = [method for method in COLUMNS if any(method in own for own in chosen.values())]
    lines = []
    for task, own in chosen.items():
        lines.append([task, *(_cell(own.get(method)) for method in methods)])
    columns = {method: [own[method] for own in chosen.values() if method in own] for method in methods}
    lines.append(["**average**", *(percent(statistics.fmean(s.mean() for s in columns[m])) for m in methods)])
    lines.append(["stored in all", *(times(_total(m, columns[m])) for m in methods)])
    shares = {m: statistics.fmean(s["trained"] / s["base_parameters"] for s in columns[m]) for m in methods}
    lines.append(["trained a task", *(share(shares[m]) for m in methods)])
    said = (
        f"Test {measured(result.rows, each=True)} in points, mean ± standard error over seeds; "
        "size, learning rate and epochs best on validation"
    )
    return markdown_table(["", *(COLUMNS[m] for m in methods)], lines) + caption(result, said)


def best_of(rows: Sequence[Row]) -> dict[str, dict[str, Summary]]:
    """By task and method, the size that is best on validation."""
    found: dict[str, dict[str, Summary]] = {}
    for summary in summarize(rows):
        own = found.setdefault(summary["task"], {})
        method = summary["method"]
        if method not in own or summary.validation > own[method].validation:
            own[method] = summary
    return found


def finding(result: Result) -> str:
    """See find.Experiment."""
    best = best_of(result.rows).values()
    found = {name: [own[name] for own in best if name in own] for name in ("adapters", "full", "top", "head")}
    return f"mean {measured(result.rows)} over {tasks_of(result.rows)}: {means(found)}"


def figures(result: Result) -> dict[str, object]:
    """None: Table 2 is a table."""
    return {}


def _cell(summary: Summary | None) -> str:
    text = scored(summary)
    if summary is None or summary["method"] not in ("adapters", "top"):
        return text
    return f"{text} ({'m' if summary['method'] == 'adapters' else 'k'} = {summary['bottleneck'] or summary['top']})"


def _total(method: str, summaries: Sequence[Summary]) -> float:
    """Base and all tasks' trained parameters over the base; where the base changes, a model a task."""
    base = summaries[0]["base_parameters"]
    trained = [summary["trained"] for summary in summaries]
    # top-layer fine-tuning shares what stays frozen below: the paper's 9.9 models for 17 tasks
    return (sum(trained) + (0 if method == "full" else base)) / base
