"""The click command experiment; transformers is imported only when it runs."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..common.errors import UserError
from ..tasks.kinds.settings import PRECISIONS
from . import NAMES
from .find import find_experiment
from .grid.options import Options
from .grid.processes import alive, helpers, leave_launcher
from .grid.spec import METHODS


class Values(click.ParamType):
    """Numbers with commas between them, as 3e-4,1e-3."""

    name = "numbers"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """The numbers."""
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.kind.__name__} numbers with commas between them.", param, ctx)


class Share(click.ParamType):
    """A percentage, as 3.6%, or a fraction."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The fraction."""
        text = str(value).strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"{value!r} is no share: expected one as 3.6% or 0.036.", param, ctx)


class PerTask(click.ParamType):
    """A value for all tasks, or for one as TASK=VALUE: (task or "", value)."""

    name = "[task=]value"

    def __init__(self, kind: click.ParamType) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The task's name and the value."""
        task, _, own = str(value).rpartition("=")
        return task, self.kind.convert(own, param, ctx)


def _rates(given: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """--lr METHOD=RATES, or RATES for adapters."""
    rates: dict[str, tuple[float, ...]] = {}
    for text in given:
        method, equals, values = text.rpartition("=")
        try:
            rates[method if equals else "adapters"] = tuple(float(value) for value in values.split(","))
        except ValueError:
            raise UserError(f"--lr {text!r}: expected METHOD=RATE,RATE as full=3e-5,1e-4") from None
    return rates


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--model", help="minilm, a model directory, or a hub name.  [default: minilm]")
@click.option("--data", multiple=True, help="A task's data: corpus, file or folder; several times for several tasks.")
@click.option("--task", "tasks", multiple=True, help="One of GLUE's folder.  [default: all that are complete]")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/experiments"), show_default=True)
@click.option("--known", multiple=True, type=click.Path(path_type=Path), help="A results.json whose runs count.")
@click.option(
    "--minutes", type=click.FloatRange(0), help="Begin no run after that; the same command goes on.  [default: no end]"
)
@click.option("--seeds", type=PerTask(click.INT), multiple=True, help="Runs of each choice that counts.  [default: 5]")
@click.option("--sweep-seeds", type=int, help="How many of them try every choice.  [default: all]")
@click.option("--lr", "rates", multiple=True, help=f"METHOD=RATES to try; methods: {', '.join(METHODS)}.")
@click.option("--epochs", type=PerTask(Values(int)), multiple=True, help="Numbers of epochs to try.")
@click.option("--bottleneck", "bottlenecks", type=Values(int), help="The adapters' widths m.")
@click.option("--budget", type=Share(), help="In place of --bottleneck: trained share of the base, as 3.6%.")
@click.option("--top-layers", "tops", type=Values(int), help="How many top layers to fine-tune.")
@click.option("--init-std", "init_stds", type=Values(float), help="Initial scales of the ablation.")
@click.option("--batch-size", type=int)
@click.option("--max-length", type=int, help="Tokens.")
@click.option("--stride", type=int, help="Tokens that windows of a context share.")
@click.option("--train-size", type=float, help="Training examples a task: a count, or a fraction below 1.")
@click.option("--validation-size", type=float)
@click.option("--test-size", type=float)
@click.option("--precision", type=click.Choice(PRECISIONS))
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes, a GPU or cores each.")
@click.option("--quick", is_flag=True, help="Tiny sizes, in seconds, to see it work.")
def experiment(name: str, output: Path, workers: int, quick: bool, rates: tuple[str, ...], **given: Any) -> None:
    """Run one of the paper's experiments; the same command again goes on where a killed one stopped.

    The defaults are the paper's settings. --seeds 5 and --epochs 3,20 are for all tasks, --seeds RTE=5 for one. Under
    torchrun or accelerate launch each process takes runs of its own.
    """
    minutes, known = given.pop("minutes"), given.pop("known")
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    first = leave_launcher()
    from rich.console import Console

    from .drive import run_experiment, write_files
    from .grid.result import read_result
    from .grid.store import Store
    from .screen import GridBoard, Silence

    module = find_experiment(name)
    options = _options(module.QUICK if quick else module.PAPER, _rates(rates), given)
    store = Store(output)
    if not first:
        run_experiment(name, module, options, store, Silence(), alive, until)
        return
    store.take(row for path in known for row in read_result(path).rows)
    console = Console()
    with helpers(workers - 1, sys.argv[1:]), GridBoard(console, name) as board:
        result = run_experiment(name, module, options, store, board, alive, until)
    written = write_files(module, result, output) if result.rows else []
    if not written:
        said = f"Time is up with {len(result.rows)} runs, too few for a table: the same command goes on"
        console.print(said, highlight=False)
        return
    console.print((output / name / "table.md").read_text("utf-8"), highlight=False, soft_wrap=True)
    names = ", ".join(str(path.relative_to(output / name)) for path in written)
    console.print(f"{len(result.rows)} runs in {output}; {names} in {output / name}", highlight=False, soft_wrap=True)
    if not result.finished:
        console.print("Time is up, and runs are missing: the same command goes on", highlight=False)


def _options(defaults: Options, rates: dict[str, tuple[float, ...]], given: dict[str, Any]) -> Options:
    """The experiment's own values with those that were given in their place."""
    changes = {key: value for key, value in given.items() if value is not None and value != ()}
    for name in ("seeds", "epochs"):
        own = dict(changes.pop(name, ()))
        changes |= {name: own.pop("")} if "" in own else {}
        changes |= {f"task_{name}": own} if own else {}
    if "bottlenecks" in changes and "budget" in changes:
        raise UserError("--budget takes the place of --bottleneck: expected one of them")
    return replace(defaults, **changes, rates={**defaults.rates, **rates})
