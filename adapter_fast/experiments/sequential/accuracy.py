"""Accuracies over steps, tasks and seeds, and what was forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..grid.cells import Row, summarize

SEPARATE = "full"  # a model a task: the plain runs of full fine-tuning


@dataclass(frozen=True)
class Course:
    """A method's accuracies.

    Attributes:
        tasks: in the order in which they are learned.
        scores: [seeds, steps, tasks], fractions; nan before a task is learned. Where all tasks are learned at once or
            apart from each other there is one step.
        rows: those of the last step, one a seed; of separate models, one a task and seed.
    """

    tasks: list[str]
    scores: np.ndarray
    rows: list[Row]

    @property
    def in_order(self) -> bool:
        """Whether tasks were learned one after another."""
        return self.scores.shape[1] > 1

    def learned(self) -> np.ndarray:
        """Right after the task was learned, [seeds, tasks]."""
        return np.diagonal(self.scores, axis1=1, axis2=2) if self.in_order else self.scores[:, 0]

    def at_end(self) -> np.ndarray:
        """After the last task, [seeds, tasks]."""
        return self.scores[:, -1]

    def forgotten(self) -> np.ndarray:
        """The first less the second, [seeds, tasks but the last one, which nothing comes after]."""
        return (self.learned() - self.at_end())[:, :-1]


def courses(rows: Sequence[Row]) -> dict[str, Course]:
    """By method: those of chains, and "full", a model a task."""
    found = chain_courses([row for row in rows if "chain" in row])
    alone = {own["task"]: own for own in summarize(row for row in rows if row["method"] == SEPARATE)}
    tasks = next(iter(found.values())).tasks
    values = np.array([alone[task].values() for task in tasks]).T
    found[SEPARATE] = Course(tasks, values[:, None], [row for task in tasks for row in alone[task].rows])
    return found


def chain_courses(rows: Sequence[Row]) -> dict[str, Course]:
    """By method, of the rows of steps."""
    found: dict[str, Course] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        steps = sorted({len(row["chain"]) for row in own})
        last = sorted((row for row in own if len(row["chain"]) == steps[-1]), key=lambda row: row["seed"])
        seeds = [row["seed"] for row in last]
        scores = np.full((len(last), len(steps), steps[-1]), np.nan)
        for row in own:
            reached = [score[row["metrics"][task]] for task, score in row["scores"].items()]
            scores[seeds.index(row["seed"]), steps.index(len(row["chain"])), : len(reached)] = reached
        found[method] = Course(list(last[0]["scores"]), scores, last)
    return found


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Over seeds, [seeds]: the mean and its standard error, nan for one seed."""
    error = math.nan if len(values) < 2 else float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), error
