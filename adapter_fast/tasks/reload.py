"""A finished run's adapter in a fresh model, scored again on the run's test part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..checkpoint import load_adapters
from ..profiler.quiet import quiet_transformers
from .models import load_model
from .settings import Settings
from .splits import load_task
from .trainer import Encoded, Report, build_trainer
from .tuning import ADAPTER, RESULTS_FILE


def score_saved(directory: str | Path, report: Report) -> tuple[float, np.ndarray]:
    """Accuracy and test logits of the base model with the adapter that a run saved."""
    directory = Path(directory)
    record = json.loads((directory / RESULTS_FILE).read_text("utf-8"))
    settings = Settings(**record["settings"])
    with quiet_transformers():
        data = load_task(settings)
        model, tokenizer, _ = load_model(settings.model, record["label_names"])
        load_adapters(model, directory / ADAPTER)
        test = Encoded(data.test, tokenizer, record["label_names"], settings.max_length)
        parts: dict[str, Encoded | None] = {"train": None, "validation": None}
        trainer, _ = build_trainer(model, tokenizer, settings, parts, directory, report, save=False)
        prediction = trainer.predict(test, metric_key_prefix="test")
    metrics = prediction.metrics or {}
    return metrics["test_accuracy"], np.asarray(prediction.predictions, dtype=np.float32)
