"""A grid's progress on a terminal: one bar over all runs, one over the run that this process is at."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class GridBoard:
    """Context manager; the engine's Watcher."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            speed_estimate_period=3600,
        )
        self._grid = self._progress.add_task(name, total=None, note="")
        self._run = self._progress.add_task("run", total=None, note="", visible=False)

    def __enter__(self) -> GridBoard:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.update(self._run, visible=False)
        self._progress.stop()

    def grid(self, done: int, jobs: int) -> None:
        """How many of the runs are done."""
        self._progress.update(self._grid, completed=done, total=jobs)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, highlight=False, markup=False)

    def begin(self, label: str) -> None:
        """Name the run, on a line of its own where no bar can move."""
        if not self._console.is_terminal:
            self._console.print(label, highlight=False)
        self._progress.reset(self._run, visible=True, total=None, note=label)

    def handle(self, event: dict[str, Any]) -> None:
        """Show the steps of the run."""
        if event["event"] == "start":
            self._progress.update(self._run, total=event["steps"], completed=event["step"])
        elif event["event"] == "step":
            self._progress.update(self._run, completed=event["step"])


class Silence:
    """A Watcher that shows nothing: a process beside the one that prints."""

    def grid(self, done: int, jobs: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, label: str) -> None:
        """Nothing."""

    def handle(self, event: dict[str, Any]) -> None:
        """Nothing."""
