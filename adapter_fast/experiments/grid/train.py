"""One run: a method trained on a task and scored on the task's parts; the row that is kept of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from safetensors.numpy import save
from torch import nn
from transformers import set_seed

from ...common.errors import UserError, first_line
from ...common.files import write_whole
from ...config import AdapterConfig
from ...placement import add_adapters
from ...placement.container import sites_in
from ...placement.sites import head_parameters
from ...placement.walk import count_parameters
from ...recipe import train_adapters, train_all, train_head_only, train_layer_norms, train_top_layers
from ...tasks.data.encoded import Encoded
from ...tasks.trainer import Report, TuningTrainer, build_trainer, median_step
from ...tasks.tuning import environment
from .cells import as_row
from .lab import Lab
from .layer_spans import score_spans
from .pool import own_trained
from .spec import Spec
from .task import TRAIN, VALIDATION

PREDICTIONS = "predictions.safetensors"


def train_and_score(spec: Spec, lab: Lab, report: Report) -> dict[str, Any]:
    """Train and score; the row: the spec, the scores of each part, the parameters' arithmetic, time and versions.

    What is frozen is the base's own memory, shared by all runs, and its digest is taken again afterwards.
    """
    task, settings = lab.tasks[spec.task], spec.settings()
    set_seed(spec.seed)
    loaded = lab.build(task, settings)
    model = loaded.model
    prepare(model, spec)
    own_trained(model)
    train = lab.encode(task, loaded.kind, task.parts[TRAIN], settings)
    directory = lab.store.directory / "trainer"
    parts = {TRAIN: train, VALIDATION: None}
    trainer, watch = build_trainer(loaded, settings, parts, directory, report, save=False)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    scores: dict[str, dict[str, float]] = {}
    diverged = False
    for name, rows in task.parts.items():
        if name != TRAIN:
            part = lab.encode(task, loaded.kind, rows, settings)
            logits = predict(trainer, part)
            diverged |= not np.isfinite(logits).all()
            scores[name] = loaded.kind.score(np.nan_to_num(logits), part)
    row = {
        **as_row(spec),
        "key": spec.key,
        "metric": task.metric,
        "scores": scores,
        "choose_by": scores[VALIDATION][task.metric],
        "diverged": diverged,
        "sizes": {name: len(rows) for name, rows in task.parts.items()},
        "labels": len(task.label_names),
        **count(model),
        "base_unchanged": lab.pool.digest(task.kind) == spec.base,
        "train_seconds": round(seconds, 2),
        "step_seconds": round(median_step(watch.seconds) or 0.0, 4),
        **environment(),
    }
    if spec.spans:
        part = lab.encode(task, loaded.kind, task.parts[VALIDATION], settings)
        row["span_scores"] = score_spans(model, lambda: loaded.kind.score(predict(trainer, part), part)[task.metric])
    if task.unlabelled:
        logits_of = {
            name: predict(trainer, lab.encode(task, loaded.kind, rows, settings))
            for name, rows in task.unlabelled.items()
        }
        write_whole(lab.store.kept(spec.key) / PREDICTIONS, save(logits_of))
    return row


def prepare(model: nn.Module, spec: Spec) -> None:
    """Insert adapters where the method has them, and freeze what it does not train."""
    try:
        if spec.method == "adapters":
            changes = {"init_std": spec.init_std, "sublayers": spec.sublayers, "layers": spec.layers}
            given = {name: value for name, value in changes.items() if value is not None}
            add_adapters(model, AdapterConfig.houlsby(bottleneck=spec.bottleneck, **given))
            train_adapters(model, layer_norms=spec.layer_norms)
        elif spec.method == "top":
            train_top_layers(model, spec.top or 0)
        else:
            {"head": train_head_only, "layer-norms": train_layer_norms, "full": train_all}[spec.method](model)
    except (TypeError, ValueError) as error:
        raise UserError(first_line(error)) from error


def predict(trainer: TuningTrainer, part: Encoded) -> np.ndarray:
    """The logits of a part, not scored."""
    trainer.compute_metrics = None
    return np.asarray(trainer.predict(part).predictions, dtype=np.float32)


def count(model: nn.Module) -> dict[str, int]:
    """Parameters: trained, of the base (without head and adapters), of head, adapters and trained LayerNorms.

    `adapters` is how many there are, and `adapter_parameters` what all of them have together.
    """
    sites = sites_in(model).values()
    modules = [adapter for site in sites for adapter in site.adapters.values()]
    in_adapters = sum(parameter.numel() for adapter in modules for parameter in adapter.parameters())
    head = sum(model.get_parameter(name).numel() for name in head_parameters(model))
    total = count_parameters(model)
    return {
        "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "base_parameters": total - head - in_adapters,
        "head_parameters": head,
        "adapters": len(modules),
        "adapter_parameters": in_adapters,
    }
