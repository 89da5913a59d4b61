"""An experiment from its options to its files: runs, results, table and figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

from ..common.files import write_whole
from ..common.quiet import quiet_transformers
from ..common.sheet import STYLE, picture
from .find import Experiment
from .grid.engine import Watcher, run_grid
from .grid.lab import Lab
from .grid.options import Options
from .grid.result import Result
from .grid.store import Store

TABLE, RESULTS, FORMATS = "table.md", "results.json", ("png", "svg")


def run_experiment(
    name: str,
    experiment: Experiment,
    options: Options,
    store: Store,
    watcher: Watcher,
    alive: Callable[[], bool] = lambda: True,
    until: float = math.inf,
) -> Result:
    """Do the runs that are missing; the rows of all, or where time (of time.monotonic()) is up, of the finished ones.

    Raises:
        UserError: one line on what was wrong with the input, before any run.
    """
    with quiet_transformers():
        with warnings.catch_warnings(record=True) as notices:
            tasks = experiment.read_tasks(options)
        for notice in notices:
            watcher.note(str(notice.message))
        lab = Lab(options.model, tasks, store)
        rows, finished = run_grid(lambda known: experiment.plan(lab, tasks, options, known), lab, watcher, alive, until)
    return Result(name, options, rows, finished)


def write_files(experiment: Experiment, result: Result, output: Path) -> list[Path]:
    """Write results.json, table.md, the figures as PNG and SVG and what else there is to output/NAME; the files.

    None of them where runs are missing and the experiment's tables need all.
    """
    if not result.finished and getattr(experiment, "WHOLE", False):
        return []
    directory = output / result.experiment
    written = [result.write(directory / RESULTS), write_whole(directory / TABLE, experiment.table(result))]
    written += draw_experiment(experiment, result, directory)
    more = getattr(experiment, "extras", None)  # files that need more than rows: glue's submission
    if more is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the data, which is read again: they were told
            written += more(result, directory)
    return written


def draw_experiment(experiment: Experiment, result: Result, directory: Path) -> list[Path]:
    """Draw the experiment's figures; the files."""
    import matplotlib

    written = []
    with matplotlib.rc_context(STYLE):
        for name, figure in experiment.figures(result).items():
            written += [write_whole(directory / f"{name}.{kind}", picture(figure, kind)) for kind in FORMATS]
    return written
