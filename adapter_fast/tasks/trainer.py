"""transformers.Trainer with the recipe's optimiser, timed steps and events in place of its bars."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..common.errors import UserError, first_line
from ..common.files import writing
from ..integrations.trainer import AdapterCheckpoints
from ..recipe import create_optimizer, training_arguments_defaults
from .checkpoints import PREFIX, STATE
from .data.encoded import Encoded
from .kinds.base import Kind
from .kinds.settings import ADAPTER_METHODS, Settings
from .models import Loaded
from .peak_memory import PeakMemory

Event = dict[str, Any]
Report = Callable[[Event], None]
WARMUP_STEPS = 3
LOGS = "logs"
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


class TuningTrainer(Trainer):
    """Trainer whose optimiser is the recipe's, and whose metrics are the kind's, of the part being scored."""

    kind: Kind
    scores: dict[str, float]  # of the part scored last

    def evaluation_loop(self, dataloader: Any, *arguments: Any, **options: Any) -> Any:
        """Remember which part is scored: metrics such as F1 of answers need more than logits and labels."""
        self._scored = dataloader.dataset
        return super().evaluation_loop(dataloader, *arguments, **options)

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler | None:
        """In the rows' order, which scores go by; Trainer would group these by length too."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Leave out the cache of a decoder, which not every configuration names among what is no prediction."""
        named = getattr(self.model.config, "keys_to_ignore_at_inference", [])  # type: ignore[union-attr]
        return super().prediction_step(model, inputs, prediction_loss_only, [*named, "past_key_values"])

    def score(self, prediction: Any) -> dict[str, float]:
        """The kind's metrics of the part."""
        self.scores = self.kind.score(np.asarray(prediction.predictions), self._scored)
        return dict(self.scores)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, whole or not at all; what a kill leaves of one, newest_whole() passes over."""
        directory = Path(self._get_output_dir(trial)) / f"{PREFIX}{self.state.global_step}"
        with writing(directory):
            try:
                (directory / STATE).unlink(missing_ok=True)  # of one that was passed over, and is written again
                super()._save_checkpoint(model, trial)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write weights under the names by which a resumed run looks for them; transformers writes some by others."""
        model: Any = self.model
        before = model.__dict__.get("save_pretrained")  # AdapterCheckpoints'
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
        try:
            super()._save(output_dir, state_dict)
        finally:
            del model.save_pretrained
            if before is not None:
                model.save_pretrained = before

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over what trains, LayerNorms and biases without decay."""
        if self.optimizer is None and self.model is not None:
            fused = None if torch.cuda.is_available() else True  # on a CPU three times as fast
            self.optimizer = create_optimizer(self.model, self.args.learning_rate, self.args.weight_decay, fused)
        return super().create_optimizer(model)


def build_trainer(
    loaded: Loaded,
    settings: Settings,
    parts: Mapping[str, Encoded | None],
    directory: Path,
    report: Report,
    save: bool,
    by_length: bool = False,
) -> tuple[TuningTrainer, StepWatch]:
    """A trainer over encoded parts; `save` keeps checkpoints in the directory.

    `by_length` puts examples of like length in a batch: less padding, but a resumed run would draw other batches.
    """
    kind = loaded.kind
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
            "report_to": settings.report_to,
            "disable_tqdm": True,
            "train_sampling_strategy": "group_by_length" if by_length else "random",
            "dataloader_pin_memory": torch.cuda.is_available(),
            **precision_arguments(settings.precision),
            **_checkpointing(settings.gradient_checkpointing),
        }
    )
    watch = StepWatch(report)
    trainer = TuningTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        data_collator=kind.collator(loaded.processor, settings),
        compute_metrics=lambda prediction: trainer.score(prediction),
        preprocess_logits_for_metrics=kind.reduce,
        callbacks=[watch, *([AdapterCheckpoints()] if settings.method in ADAPTER_METHODS else [])],
    )
    trainer.kind = kind
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(directory.parent / LOGS)  # in the checkpoints' folder they would go with it
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer, watch


def precision_arguments(precision: str) -> dict[str, bool]:
    """auto is bf16 on a GPU that has it, and fp32 elsewhere."""
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    on_cpu = precision == "bf16" and not torch.cuda.is_available()  # transformers wants to be told that this is meant
    return {"bf16": precision == "bf16", "fp16": precision == "fp16", "use_cpu": on_cpu}


def _checkpointing(wanted: bool) -> dict[str, bool]:
    """The option by its name in this version of transformers."""
    names = {field.name for field in fields(TrainingArguments)}
    return {"activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing": wanted}


def check_reporting(report_to: str) -> None:
    """Raise unless transformers knows this logger and its package is installed."""
    try:
        for callback in get_reporting_integration_callbacks(report_to):
            callback()
    except (ImportError, RuntimeError, ValueError) as error:
        raise UserError(f"report_to {report_to!r}: {first_line(error)}") from error


def median_step(seconds: list[float]) -> float | None:
    """The median after warm-up, or of all where there are few."""
    timed = sorted(seconds[WARMUP_STEPS:] or seconds)
    return timed[len(timed) // 2] if timed else None


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
