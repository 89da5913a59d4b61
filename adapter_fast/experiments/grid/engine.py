"""A grid of runs over one or more processes: each takes what no other has, until the plan wants nothing more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ...tasks.trainer import Report
from .cells import Row
from .lab import Lab
from .spec import Spec
from .train import train_and_score

POLL = 0.5  # seconds between looks at what other processes have finished


class Work(Protocol):
    """A run that is no Spec: a name that follows from all that decides its result, a label, and the work."""

    @property
    def key(self) -> str:
        """Equal for equal jobs alone."""
        ...

    @property
    def label(self) -> str:
        """In words."""
        ...

    def run(self, lab: Lab, report: Report) -> Row:
        """Do it."""
        ...


Job = Spec | Work
Plan = Callable[[Mapping[str, Row]], Sequence[Job]]


class Watcher(Protocol):
    """What is told how the grid goes."""

    def grid(self, done: int, jobs: int) -> None:
        """So many of the runs known so far are done, in all processes."""
        ...

    def note(self, text: str) -> None:
        """Something about the data."""
        ...

    def begin(self, label: str) -> None:
        """This process begins a run."""
        ...

    def handle(self, event: dict[str, Any]) -> None:
        """A run's own event."""
        ...


def run_grid(
    plan: Plan, lab: Lab, watcher: Watcher, alive: Callable[[], bool] = lambda: True, until: float = math.inf
) -> tuple[list[Row], bool]:
    """Do every run that the plan asks for and that is not finished; the rows, in the plan's order, and whether all are.

    Several processes may call this with one store: a run belongs to the first that claims it, and a process that dies
    leaves its run to the others. A plan may ask for more once it sees rows: stages of a sweep. Every cell's first seed
    comes before any second one, so that a grid that is stopped tells something of all of them.

    Args:
        plan: from the finished rows by key to all runs that are wanted as far as is known.
        watcher: told how it goes. alive: looked at between runs; where it says no, the process stops here.
        until: no run is begun after this time of time.monotonic().
    """
    store = lab.store
    while True:
        rows = store.rows()
        jobs = list({job.key: job for job in plan(rows)}.values())
        missing = [job for job in jobs if job.key not in rows]
        watcher.grid(len(jobs) - len(missing), len(jobs))
        if not missing:
            return [rows[job.key] for job in jobs], True
        done = 0
        for job in sorted(missing, key=lambda job: getattr(job, "seed", 0)):
            if not alive():
                raise SystemExit(0)
            if time.monotonic() > until:
                rows = store.rows()
                return [rows[job.key] for job in jobs if job.key in rows], False
            with store.claim(job.key) as mine:
                if not mine or store.find(job.key) is not None:
                    continue
                watcher.begin(job.label)
                store.write(job.key, do(job, lab, watcher.handle))
                done += 1
            watcher.grid(sum(store.find(job.key) is not None for job in jobs), len(jobs))
        if not done:
            time.sleep(POLL)


def do(job: Job, lab: Lab, report: Report) -> Row:
    """Do a run; its row."""
    return train_and_score(job, lab, report) if isinstance(job, Spec) else job.run(lab, report)
