"""Progress bars for runs: one row a run, fed with the trainer's events."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Board:
    """Context manager over a live set of rows."""

    def __init__(self, console: Console, labels: list[str]) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
        )
        self._rows: dict[str, TaskID] = {
            label: self._progress.add_task(label, start=False, total=None, note="") for label in labels
        }

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, label: str) -> None:
        """Start a row's clock."""
        self._progress.start_task(self._rows[label])
        self._update(label, note="loading")

    def handle(self, label: str, event: dict[str, Any]) -> None:
        """Show a trainer's event in a row."""
        kind = event["event"]
        if kind == "start":
            self._update(label, total=event["steps"], completed=event["step"], note="training")
        elif kind == "step":
            self._update(label, completed=event["step"], note=f"loss {event['loss']:.3f}")
        elif kind == "note":
            self._progress.console.print(event["text"], highlight=False, markup=False, soft_wrap=True)
        elif kind == "predict":
            self._update(label, note=f"scoring {event['batch']}")

    def finish(self, label: str, note: str) -> None:
        """Stop a row's clock with its last word."""
        self._update(label, note=note)
        self._progress.stop_task(self._rows[label])

    def _update(self, label: str, **values: Any) -> None:
        self._progress.update(self._rows[label], **values)
