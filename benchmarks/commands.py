"""The click command bench."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapter_fast.benchmarks.rows import SUITES
from adapter_fast.benchmarks.rows.compare import PROVIDERS

if TYPE_CHECKING:
    from rich.console import Console

    from adapter_fast.benchmarks.runner import Outcome, Run
    from adapter_fast.benchmarks.suites import Bench

INTERRUPTED = 130


@click.command()
@click.option("--suite", type=click.Choice((*SUITES, "all")), default="all", show_default=True)
@click.option("--device", type=click.Choice(("cpu", "cuda")), help="[default: the GPU where there is one]")
@click.option(
    "--dtype", type=click.Choice(("float32", "bfloat16", "float16")), help="[default: bfloat16 on a GPU, else float32]"
)
@click.option("--quick", is_flag=True, help="One small case a suite, to see that everything runs.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice(tuple(PROVIDERS)),
    help="Only this one; may be repeated.",
)
@click.option("--case", "cases", multiple=True, help="Only this case, as the tables name it; may be repeated.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of two samples each.  [default: the suite's own]")
@click.option("--no-autotune", is_flag=True, help="torch.compile in its default mode alone: minutes less a shape.")
@click.option("--no-plots", is_flag=True, help="Write rows, draw nothing.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="[default: the checkout's benchmarks/results, or ./results]",
)
@click.option("--resume", is_flag=True, help="Leave out what this commit has measured here already.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Start nothing that would end later than this."
)
def bench(
    *,
    suite: str,
    device: str | None,
    dtype: str | None,
    quick: bool,
    providers: tuple[str, ...],
    cases: tuple[str, ...],
    rounds: int | None,
    no_autotune: bool,
    no_plots: bool,
    output: Path | None,
    resume: bool,
    minutes: float | None,
) -> None:
    """Time and weigh adapters against their peers: checked first, then interleaved; a table, JSON rows and plots.

    A run of only some providers or cases, or with --quick, writes only where --output says.
    """
    import torch
    from rich.console import Console

    from adapter_fast.benchmarks.rows import ResultsError
    from adapter_fast.benchmarks.rows.provenance import RESULTS
    from adapter_fast.benchmarks.runner import Run, WrongResult
    from adapter_fast.benchmarks.suites import benches, campaign, chosen
    from adapter_fast.measure.machine import device_name, pin_threads

    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: there is no CUDA device here")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and dtype == "float16":
        raise click.UsageError("--dtype float16 on a CPU: expected float32 or bfloat16")
    if output is None and not (quick or providers or cases):
        output = RESULTS
    if resume and output is None:
        raise click.UsageError("--resume with --quick, --provider or --case needs --output: nothing else was written")
    threads = pin_threads()
    console = Console()
    run = Run(device, providers or None, output, minutes * 60 if minutes else None, resume, whole=not cases)
    console.print(
        f"{device_name(device)}, torch {torch.__version__}, {threads} host thread{'s' if threads > 1 else ''} pinned",
        highlight=False,
    )
    try:
        grid = campaign if suite == "all" else partial(benches, suite)
        work = chosen(grid(device, dtype=dtype, quick=quick, autotune=not no_autotune), cases, rounds)
        with _ctrl_c(run), _progress(len(work)) as report:
            outcomes = list(run.run(work, report).values())
    except KeyboardInterrupt:
        kept = f"what was measured is in {output}; go on with --resume" if output else "nothing was written"
        click.echo(f"adapter-fast: interrupted; {kept}", err=True)
        raise SystemExit(INTERRUPTED) from None
    except WrongResult as error:
        click.echo(f"adapter-fast: our own result is wrong, its case was not timed: {error}", err=True)
        raise SystemExit(1) from None
    except (ResultsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _finish(console, run, outcomes, plots=not no_plots)


@contextmanager
def _ctrl_c(run: Run) -> Iterator[None]:
    """The first Ctrl-C stops the run at its next step, the second where it falls.

    An exception that falls into torch.compile may be dropped in a weak reference's callback, turned into another error,
    or end the process.
    """

    def stop(*_: object) -> None:
        run.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Straight to the file: the signal may fall into a print.
        os.write(2, b"\nadapter-fast: stopping after this step; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _finish(console: Console, run: Run, outcomes: list[Outcome], plots: bool) -> None:
    from adapter_fast.benchmarks.shown.screen import headline, screen
    from adapter_fast.measure.machine import slug

    rows = [row for outcome in outcomes for row in outcome.rows]
    screen(rows, console)
    console.print()
    for line in headline(rows):
        console.print(line, highlight=False)
    if run.output is not None:
        folder = run.output / slug(run.origin["device"])
        pictures = []
        if plots:
            from adapter_fast.benchmarks.shown.figures.plots import draw_plots

            pictures = draw_plots({outcome.rows[0].suite: outcome.rows for outcome in outcomes if outcome.rows}, folder)
        files = [str(outcome.path) for outcome in outcomes if outcome.rows] + [str(path) for path in pictures]
        console.print("wrote " + ", ".join(files), highlight=False, soft_wrap=True)
    left = sum(len(outcome.left) for outcome in outcomes)
    if left:
        console.print(f"{left} phases did not fit into the time: run again with --resume", highlight=False)


@contextmanager
def _progress(total: int) -> Iterator:
    """A bar on a terminal; in a log a line for each step. Gives the function that each step calls."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=total)
        done = 0

        def report(bench: Bench) -> None:
            nonlocal done
            name = f"{bench.suite}: {bench.case}, {bench.phase}"
            progress.update(task, completed=done, description=name)
            done += 1
            if not console.is_terminal:
                console.print(f"[{done}/{total}] {name}", highlight=False, markup=False, soft_wrap=True)

        yield report
