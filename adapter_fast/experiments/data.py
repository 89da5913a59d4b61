"""An experiment's tasks: GLUE's folders among the data are read as such, all else as labelled text sets."""

from __future__ import annotations

from ..common.errors import UserError
from .glue.load_tasks import holds_glue, read_glue
from .grid import texts
from .grid.options import Options
from .grid.task import Task


def read_tasks(options: Options) -> list[Task]:
    """The tasks in the order of the data, which --task chooses from where it is GLUE's folder."""
    if not options.data:
        raise UserError(f"--data is needed: {texts.EXPECTED}, or GLUE's folder")
    if options.tasks and not any(map(holds_glue, options.data)):
        raise UserError(f"--task {options.tasks[0]} chooses among GLUE's tasks: expected --data with GLUE's folder")
    tasks = [
        task
        for name in options.data
        for task in (read_glue(name, options) if holds_glue(name) else [texts.read_task(name, options)])
    ]
    check_names([task.name for task in tasks], options)
    return tasks


def check_names(names: list[str], options: Options) -> None:
    """Raise UserError where two tasks have one name, or where an option names a task that is not there."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data gives two tasks of the name {name!r}: expected different names")
    options.check_tasks(names)
