"""The click command report; what draws and writes is imported only when it runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--check", is_flag=True, help="Only say whether pages and figures agree with the results.")
@click.option(
    "--keep-demo",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A demo's results.json to put among the others first.",
)
@click.option(
    "--keep-experiments",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="What `adapter-fast experiment` wrote to: its results are put among the others first.",
)
def report(check: bool, keep_demo: Path | None, keep_experiments: Path | None) -> None:
    """Write every table and figure of docs/benchmarks.md and docs/paper.md from benchmarks/results/."""
    from adapter_fast.benchmarks.pages.report import report as write
    from adapter_fast.benchmarks.rows import ResultsError

    try:
        code = write(check, keep_demo, keep_experiments)
    except ResultsError as error:
        raise click.ClickException(str(error)) from error
    if code:
        raise SystemExit(code)
