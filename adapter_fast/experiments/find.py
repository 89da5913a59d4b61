"""The experiments by name. Each is a module with the same names: see Experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from .grid.options import Options
from .grid.task import Task

if TYPE_CHECKING:
    from .grid.engine import Job
    from .grid.lab import Lab
    from .grid.result import Result

NAMES = ("glue", "classification", "squad", "tradeoff", "sequential", "ablation")


class Experiment(Protocol):
    """What an experiment's module has."""

    HELP: str
    PAPER: Options
    QUICK: Options

    def read_tasks(self, options: Options) -> list[Task]:
        """The tasks of the options' data."""
        ...

    def plan(
        self, lab: Lab, tasks: Sequence[Task], options: Options, rows: Mapping[str, dict[str, Any]]
    ) -> Sequence[Job]:
        """All runs that are wanted as far as the finished rows tell."""
        ...

    def table(self, result: Result) -> str:
        """Markdown."""
        ...

    def figures(self, result: Result) -> dict[str, Any]:
        """matplotlib figures by name."""
        ...


def find_experiment(name: str) -> Experiment:
    """The experiment of this name."""
    return cast(Experiment, import_module(f".{name}", __package__))
