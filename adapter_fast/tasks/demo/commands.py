"""The click command demo; torch and transformers are imported only when it runs."""

from __future__ import annotations

from pathlib import Path

import click

from ..commands import one_gpu


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
@click.option("--quick", is_flag=True, help="Tiny sizes, in seconds; the accuracy is not judged.")
def demo(output: Path, quick: bool) -> None:
    """Tune MiniLM on Reuters-R8 four ways and print one table."""
    one_gpu()
    from rich.console import Console

    from .run import run_demo

    if not run_demo(output, Console(), quick=quick):
        click.echo(f"adapter-fast: a check failed: see the lines marked ✗ above, or {output}/results.json", err=True)
        raise SystemExit(1)
