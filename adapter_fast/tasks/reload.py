"""A finished run's adapter in a fresh model, scored again on the run's test part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..checkpoint import load_adapters
from ..common.quiet import quiet_transformers
from .kinds.settings import read_settings
from .models import load_model
from .record import check_labels, read_record
from .splits import load_task
from .trainer import Report, build_trainer
from .tuning import ADAPTER, RESULTS_FILE


def score_saved(directory: str | Path, report: Report) -> tuple[dict[str, float], np.ndarray]:
    """Metrics and test logits of the base model with the adapter that a run saved.

    Raises:
        UserError: the directory holds no finished run, or the task's data has other labels by now.
    """
    directory = Path(directory)
    path = directory / RESULTS_FILE
    record = read_record(path)
    settings = replace(read_settings(record.get("settings", {}), str(path)), report_to="none")
    with quiet_transformers():
        data = load_task(settings)
        check_labels(f"the run in {directory}", record["label_names"], data.label_names)
        loaded = load_model(settings.model, data.kind, record["label_names"])
        load_adapters(loaded.model, directory / ADAPTER)
        test = loaded.kind.encode(data.test, loaded.processor, record["label_names"], settings)
        parts = {"train": None, "validation": None}
        trainer, _ = build_trainer(loaded, settings, parts, directory, report, save=False)
        prediction = trainer.predict(test, metric_key_prefix="test")
    return trainer.scores, np.asarray(prediction.predictions, dtype=np.float32)
