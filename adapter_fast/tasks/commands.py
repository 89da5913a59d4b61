"""The click command tune; transformers is imported only when it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..checks import ACTIVATIONS
from ..config import PLACEMENTS
from .data.corpora import CORPORA
from .kinds import KINDS
from .kinds.find import BY_SUFFIX
from .kinds.settings import LEARNING_RATES, METHODS, PRECISIONS, Settings

DEFAULTS = Settings(model="", task="")
FILES = ", ".join(dict.fromkeys([*BY_SUFFIX, ".jsonl"]))
RATES = ", ".join(f"{method} {rate:g}" for method, rate in LEARNING_RATES.items())


class Numbers(click.ParamType):
    """Whole numbers and ranges of them, as 0-3,8."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers, ranges spelt out."""
        numbers: list[int] = []
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
                self.fail(f"{value!r} is not numbers and ranges of them, as 0-3,8.", param, ctx)
            numbers += range(int(first), int(last or first) + 1)
        return numbers


def one_gpu() -> None:
    """Keep Trainer from wrapping the model in DataParallel where there are several GPUs and no launcher."""
    if "LOCAL_RANK" not in os.environ:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


@click.command()
@click.option("--model", required=True, help="minilm, a model directory, or a hub name.")
@click.option("--task", required=True, help=f"{', '.join(CORPORA)}, a {FILES} file, or a folder of image folders.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Directory for adapter and results.")
@click.option("--kind", type=click.Choice(KINDS), help="What the task is.  [default: what its data says]")
@click.option("--method", type=click.Choice(METHODS), default=DEFAULTS.method, show_default=True, help="What trains.")
@click.option("--bottleneck", type=int, default=DEFAULTS.bottleneck, show_default=True, help="The adapters' width m.")
@click.option("--activation", type=click.Choice(ACTIVATIONS), default=DEFAULTS.activation, show_default=True)
@click.option("--placement", type=click.Choice(PLACEMENTS), default=DEFAULTS.placement, show_default=True)
@click.option("--layers", type=Numbers(), help="Layers with adapters, as 0-3,8.  [default: all]")
@click.option("--target-modules", help="For a model of another family: a regular expression of modules to adapt.")
@click.option("--layer-norms/--no-layer-norms", default=True, show_default=True, help="Train the LayerNorms too.")
@click.option("--lr", type=float, help=f"Learning rate.  [default: {RATES}]")
@click.option("--epochs", type=int, default=DEFAULTS.epochs, show_default=True)
@click.option("--batch-size", type=int, default=DEFAULTS.batch_size, show_default=True)
@click.option("--max-length", type=int, help="Tokens of a text, block or window.  [default: 128, or 384 for questions]")
@click.option("--stride", type=int, help="Tokens that windows of a context share.  [default: a third of --max-length]")
@click.option("--train-size", type=float, help="Examples to train on: a count, or a fraction below 1.  [default: all]")
@click.option("--validation-size", type=float, help="Examples to score after each epoch, out of the training data.")
@click.option("--test-size", type=float, help="Examples to test on.  [default: 0.2 of a single file, else all]")
@click.option("--validation", "validation_file", help="File or folder to score after each epoch.")
@click.option("--test", "test_file", help="File or folder to test on; without it the task's own is split.")
@click.option(
    "--text-column",
    "text_columns",
    multiple=True,
    default=DEFAULTS.text_columns,
    show_default=True,
    help="Given twice for pairs. In CoNLL files a number, from 1.",
)
@click.option("--label-column", default=DEFAULTS.label_column, show_default=True, help="As --text-column.")
@click.option("--metric", help="What runs go by, as matthews, f1, pearson.  [default: accuracy, spearman, GLUE's own]")
@click.option("--skip-bad", is_flag=True, help="Leave out answers that are not where they say, and count them.")
@click.option("--precision", type=click.Choice(PRECISIONS), default=DEFAULTS.precision, show_default=True)
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory: layers are computed again going back.")
@click.option("--report-to", default=DEFAULTS.report_to, show_default=True, help="tensorboard, wandb …: see Trainer.")
@click.option("--seed", type=int, default=DEFAULTS.seed, show_default=True)
@click.option("--save-steps", type=int, help="Steps between checkpoints.  [default: one an epoch]")
@click.option("--resume", is_flag=True, help="Go on with the killed run in --output.")
def tune(output: Path, resume: bool, **options: Any) -> None:
    """Tune a model on a task and save the adapter."""
    settings = Settings(**options)
    one_gpu()
    from rich.console import Console

    from .progress import Board
    from .screen import print_data, print_run, score_text
    from .tuning import is_first_process
    from .tuning import tune as run

    console = Console()
    label = settings.method

    def report(event: dict[str, Any]) -> None:
        if event["event"] != "data":
            board.handle(label, event)
        elif is_first_process():
            print_data(console, event)

    with Board(console, [label]) as board:
        board.begin(label)
        outcome = run(settings, output, resume=resume, report=report)
        board.finish(label, score_text(*next(iter(outcome.results["metrics"].items()))))
    if is_first_process():
        print_run(console, outcome.results, output)
