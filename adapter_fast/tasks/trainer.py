"""transformers.Trainer with the recipe's optimiser, timed steps and events in place of its bars."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..recipe import create_optimizer, training_arguments_defaults
from .memory import PeakMemory
from .metrics import score
from .readers import Examples
from .settings import Settings

Event = dict[str, Any]
Report = Callable[[Event], None]
WARMUP_STEPS = 3
KEPT_CHECKPOINTS = 2  # the last one may be half written when the run is killed


class StepWatch(TrainerCallback):
    """Times each step, measures the peak memory of all, and reports progress."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.seconds: list[float] = []
        self.predicted = 0
        self.peak = PeakMemory()

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Report how many steps there are and begin to measure memory."""
        self.report({"event": "start", "step": state.global_step, "steps": state.max_steps})
        for parameter in objects["model"].parameters():
            parameter.detach().sum()  # weights mapped from a file would count as training's memory when first read
        self.peak.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End to measure memory."""
        self.peak.stop()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._begin = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock."""
        self.seconds.append(_now() - self._begin)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Report a step's loss."""
        if logs and "loss" in logs:
            self.report({"event": "step", "step": state.global_step, "steps": state.max_steps, "loss": logs["loss"]})

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report a predicted batch."""
        self.predicted += 1
        self.report({"event": "predict", "batch": self.predicted})


class Encoded(Dataset[dict[str, Any]]):
    """Token ids cut at max_length, with class numbers; padding comes with the batch."""

    def __init__(
        self, examples: Examples, tokenizer: PreTrainedTokenizerBase, label_names: list[str], max_length: int
    ) -> None:
        numbers = {label: number for number, label in enumerate(label_names)}
        encoded = tokenizer(examples.texts, truncation=True, max_length=max_length)
        self.columns = {name: encoded[name] for name in encoded if name in tokenizer.model_input_names}
        self.columns["labels"] = [numbers[label] for label in examples.labels]

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.columns.items()}


class TuningTrainer(Trainer):
    """Trainer whose optimiser is the recipe's."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over what trains, LayerNorms and biases without decay."""
        if self.optimizer is None and self.model is not None:
            self.optimizer = create_optimizer(self.model, self.args.learning_rate, self.args.weight_decay)
        return super().create_optimizer(model)


def build_trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    parts: dict[str, Encoded | None],
    directory: Path,
    report: Report,
    save: bool,
) -> tuple[TuningTrainer, StepWatch]:
    """A trainer over encoded parts; `save` keeps checkpoints in the directory."""
    arguments = TrainingArguments(
        **{
            **training_arguments_defaults(),
            "output_dir": str(directory),
            "learning_rate": settings.learning_rate,
            "per_device_train_batch_size": settings.batch_size,
            "per_device_eval_batch_size": 2 * settings.batch_size,
            "num_train_epochs": settings.epochs,
            "seed": settings.seed,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "eval_strategy": "epoch" if parts["validation"] else "no",
            "save_strategy": ("steps" if settings.save_steps else "epoch") if save else "no",
            "save_steps": settings.save_steps or 500,
            "save_total_limit": KEPT_CHECKPOINTS,
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": torch.cuda.is_available(),
            **precision_arguments(settings.precision),
        }
    )
    watch = StepWatch(report)
    trainer = TuningTrainer(
        model=model,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda prediction: score(np.asarray(prediction.predictions), np.asarray(prediction.label_ids)),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer, watch


def precision_arguments(precision: str) -> dict[str, bool]:
    """auto is bf16 on a GPU that has it, and fp32 elsewhere."""
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return {"bf16": precision == "bf16", "fp16": precision == "fp16"}


def median_step(seconds: list[float]) -> float | None:
    """The median after warm-up, or of all where there are few."""
    timed = sorted(seconds[WARMUP_STEPS:] or seconds)
    return timed[len(timed) // 2] if timed else None


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
