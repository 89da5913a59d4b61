"""What the runs of one grid share: the base in memory, the tasks, their tokenised parts, the store."""

from __future__ import annotations

from collections.abc import Iterable

from ...common.digest import digest
from ...tasks.data.encoded import Encoded
from ...tasks.data.rows import Rows
from ...tasks.kinds.base import Kind
from ...tasks.kinds.settings import Settings
from ...tasks.models import Loaded, check_max_length
from .cache import encoded
from .dropout import draw_cheaply
from .pool import Pool
from .store import Store
from .task import Task


class Lab:
    """Tasks by name around one base model."""

    def __init__(self, model: str, tasks: Iterable[Task], store: Store) -> None:
        self.pool = Pool(model)
        self.tasks = {task.name: task for task in tasks}
        self.store = store
        self._encoded: dict[str, Encoded] = {}
        self._digests: dict[str, str] = {}

    def base(self, task: Task) -> str:
        """The digest of the base's weights as they were first read."""
        name = task.kind.auto_class.__name__
        if name not in self._digests:
            self._digests[name] = self.pool.digest(task.kind)
        return self._digests[name]

    def data(self, task: Task) -> str:
        """The digest of what a task trains and is scored on: its parts, its labels, its metric."""
        if task.name not in self._digests:
            parts = {name: rows.digest() for name, rows in task.parts.items()}
            self._digests[task.name] = digest(
                {"parts": parts, "labels": task.label_names, "metric": task.metric, "kind": type(task.kind).__name__}
            )
        return self._digests[task.name]

    def encode(self, task: Task, kind: Kind, rows: Rows, settings: Settings) -> Encoded:
        """Rows of a task, tokenised once: kept in memory, and on disk by their content."""
        where = digest([task.name, id(rows), kind.length(settings), settings.stride])
        if where not in self._encoded:
            processor = self.pool.load(task.kind).processor
            self._encoded[where] = encoded(kind, rows, processor, task.label_names, settings)
        return self._encoded[where]

    def build(self, task: Task, settings: Settings) -> Loaded:
        """A model for the task with a new head."""
        loaded = self.pool.build(task.kind, task.label_names)
        draw_cheaply(loaded.model)
        check_max_length(loaded, settings)
        return loaded
