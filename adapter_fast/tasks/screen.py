"""What the demo and a tuning run print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from .kinds.find import load_kind
from .kinds.settings import Settings

MODEL = "MiniLM-L6: BERT, 6 layers of width 384, 22.7 M parameters"
CORPUS = "Reuters-R8, news in 8 topics"


def print_header(console: Console, settings: Settings, rates: dict[str, float], quick: bool) -> None:
    """Say what is about to run, on what."""
    from .tuning import environment

    here = environment()
    device = here["device"] if here["threads"] is None else f"{here['device']}, {_count(here['threads'], 'thread')}"
    split = f"{settings.train_size or 0:,.0f} train and {settings.test_size or 0:,.0f} test texts"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("model", MODEL)
    grid.add_row("corpus", CORPUS)
    grid.add_row("split", f"{split}, cut at {settings.max_length} tokens")
    grid.add_row("recipe", f"{_count(settings.epochs, 'epoch')} of batch {settings.batch_size}, seed {settings.seed}")
    grid.add_row("rates", ", ".join(f"{label} {rate:g}" for label, rate in rates.items()))
    grid.add_row("device", f"{device}, {settings.precision}")
    grid.add_row("with", ", ".join(f"{name} {version}" for name, version in here["versions"].items()))
    console.print()
    console.rule("[bold]adapter-fast demo" + (" --quick" if quick else ""), align="left")
    console.print(Padding(grid, (1, 0)), highlight=False)


def print_table(console: Console, results: dict[str, dict[str, Any]]) -> None:
    """One row a method."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False)
    for name in ("method", "trained", "share", "accuracy", "s/step", "peak memory"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for label, record in results.items():
        table.add_row(
            label,
            f"{record['trained']:,}",
            f"{100 * record['share']:.2f} %",
            f"{record['accuracy']:.3f}",
            f"{record['step_seconds']:.3f}",
            f"{record['peak_bytes'] / 1e6:,.0f} MB",
            style="bold" if record["settings"]["method"] == "fused" else None,
        )
    console.print()
    console.print(table)
    record = next(reversed(results.values()))
    console.print(f"s/step: the median. Peak memory: {record['peak_meaning']}.", style="dim", highlight=False)
    for record in results.values():
        if record["settings"]["method"] == "fused":
            console.print("Fused adapters run on " + "; ".join(record["backends"]) + ".", style="dim", highlight=False)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def print_checks(console: Console, summary: dict[str, Any], output: Path) -> None:
    """What held and what did not, and where the results are."""
    grid = Table.grid(padding=(0, 1))
    for check in summary["checks"]:
        grid.add_row("[green]✓" if check["passed"] else "[bold red]✗", check["text"])
    console.print()
    console.print(grid, highlight=False)
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    console.print(f"\n{minutes}:{seconds:02d} minutes in all. Adapter and results.json: {output}", highlight=False)


def score_text(metric: str, value: float) -> str:
    """A metric's name and value, as screens have them."""
    return f"{metric.replace('_', ' ').replace('f1', 'F1')} {value:.3f}"


def print_data(console: Console, event: dict[str, Any]) -> None:
    """What was read, before it trains: examples by file and part, classes with their counts, what was assumed."""
    (source, number), *others = event["read"]
    read = [f"{number:,} {event['unit']} from {source}", *(f"{number:,} from {source}" for source, number in others)]
    words = {"train": "to train on", "validation": "to validate", "test": "to test"}
    parts = [f"{size:,} {words[name]}" for name, size in event["sizes"].items() if size]
    lines = [f"read {', '.join(read)}: {', '.join(parts)}"]
    if event["labels"]:
        counts = ", ".join(f"{_name(name)} {count:,}" for name, count in event["most"])
        hidden = event["labels"] - len(event["most"])
        more = f" and {hidden:,} more, down to {event['least']:,}" if hidden else ""
        lines.append(f"{event['labels']:,} classes to train on: {counts}{more}")
    for line in [*lines, *(f"note: {notice}" for notice in event["notices"])]:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _name(label: str, most: int = 40) -> str:
    """A class's name as it can be shown: without line breaks and the like, and not too long."""
    shown = label if label.isprintable() else repr(label)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def print_run(console: Console, results: dict[str, Any], output: Path) -> None:
    """A tuning run's result."""
    unit = load_kind(results["kind"]).unit
    scores = ", ".join(score_text(metric, value) for metric, value in results["metrics"].items())
    console.print(
        f"{scores} on {results['sizes']['test']:,} test {unit}; "
        f"trained {results['trained']:,} of {results['parameters']:,} parameters ({100 * results['share']:.2f} %)",
        highlight=False,
    )
    for backend in results["backends"]:
        console.print(f"backend {backend}", style="dim", highlight=False)
    console.print(f"written to {output}", highlight=False)
