"""An experiment by its name, one of NAMES, and what each of these modules has."""

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


class Experiment(Protocol):
    """What an experiment's module has."""

    COMMAND: str  # the paper's own, without "adapter-fast experiment"
    PICTURES: dict[str, str]  # figures() by name, in words for those who cannot see them
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

    def finding(self, result: Result) -> str:
        """What was found, in one sentence of figures; says itself what is missing of the runs it needs."""
        ...

    def figures(self, result: Result) -> dict[str, Any]:
        """matplotlib figures by name."""
        ...


def find_experiment(name: str) -> Experiment:
    """The experiment of this name."""
    return cast(Experiment, import_module(f".{name}", __package__))
