"""The click command profile; torch and transformers are imported only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

WIDTH = 100  # of what is printed into a file or a pipe


@click.command()
@click.option(
    "--model", required=True, help="random:NAME (from its configuration), minilm, a directory, or a hub name."
)
@click.option("--batch", required=True, type=click.IntRange(min=1), help="Sequences of one forward.")
@click.option("--seq-len", required=True, type=click.IntRange(min=1), help="Tokens of a sequence.")
@click.option("--adapter", type=click.Path(path_type=Path), help="A saved adapter.  [default: a fresh Houlsby adapter]")
@click.option("--bottleneck", type=click.IntRange(min=1), help="Width m of a fresh adapter.  [default: 64]")
@click.option("--implementation", type=click.Choice(("fused", "reference")), help="Of a fresh one.  [default: fused]")
@click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32", show_default=True)
@click.option("--device", type=click.Choice(("cpu", "cuda")), help="[default: cuda where there is one]")
@click.option("--compile", "compiled", is_flag=True, help="Latency under torch.compile.")
@click.option("--cuda-graph", is_flag=True, help="Latency of the forward captured in a CUDA graph.")
@click.option("--repeats", type=click.IntRange(min=2), default=100, show_default=True, help="Timed forwards of each.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/profile"), show_default=True)
def profile(output: Path, device: str | None, **options: Any) -> None:
    """Profile a model's forward with adapters against the bare model: latency, launches, memory, layer by layer."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ..common.errors import WriteError
    from .request import ProfileError, Request
    from .run import run_profile, total_steps, write_profile
    from .screen import print_profile

    request = Request(device=device or ("cuda" if torch.cuda.is_available() else "cpu"), **options)
    shown = sys.stdout.isatty()
    console = Console(width=None if shown else WIDTH)
    # Drawn between measurements only: a thread that draws would be timed too.
    columns = TextColumn("[bold]{task.description}"), BarColumn(bar_width=32), TimeRemainingColumn()
    if output.exists() and not output.is_dir():
        raise click.UsageError(f"--output must be a directory, {output} is a file")
    try:
        with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=not shown) as progress:
            task = progress.add_task("loading", total=total_steps(request))

            def tick(stage: str) -> None:
                progress.update(task, advance=1, description=stage, refresh=True)

            found = run_profile(request, tick)
        paths = write_profile(found, output)
    except WriteError:
        raise
    except (ProfileError, OSError) as error:
        raise click.ClickException(str(error)) from error
    print_profile(console, found, paths)
