"""One run: a method trained on a task and scored on the task's parts; the row that is kept of it."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from torch import nn
from transformers import set_seed

from ...common.errors import UserError, first_line
from ...config import AdapterConfig
from ...placement import add_adapters
from ...placement.container import sites_in
from ...placement.sites import head_parameters
from ...placement.walk import count_parameters
from ...recipe import train_adapters, train_all, train_head_only, train_layer_norms, train_top_layers
from ...tasks.data.encoded import Encoded
from ...tasks.models import Loaded
from ...tasks.trainer import Report, TuningTrainer, build_trainer, median_step
from ...tasks.tuning import environment
from .cells import Row, as_row, is_best
from .lab import Lab
from .layer_spans import score_spans
from .pool import own_trained
from .spec import Spec
from .task import TRAIN, VALIDATION


class Trained(NamedTuple):
    """A run's model after training, with what its row says of it."""

    loaded: Loaded
    trainer: TuningTrainer
    step_seconds: list[float]
    seconds: float
    tokens: int  # that were trained on, padding not counted


def train_and_score(spec: Spec, lab: Lab, report: Report) -> Row:
    """Train and score; the row: the spec, the scores of each part, the parameters' arithmetic, time and versions.

    What is frozen is the base's own memory, shared by all runs, and its digest is taken again afterwards. A run that is
    its cell's best so far predicts the unlabelled parts too.
    """
    task = lab.tasks[spec.task]
    trained = train(spec, lab, report)
    kind = trained.loaded.kind
    scores: dict[str, dict[str, float]] = {}
    diverged = False
    for name, rows in task.parts.items():
        if name != TRAIN:
            part = lab.encode(task, kind, rows, spec.settings())
            logits = predict(trained.trainer, part)
            diverged |= not np.isfinite(logits).all()
            scores[name] = kind.score(np.nan_to_num(logits), part)
    row = {
        **as_row(spec),
        "key": spec.key,
        "metric": task.metric,
        "scores": scores,
        "choose_by": scores[VALIDATION][task.metric],
        "diverged": diverged,
        "sizes": {name: len(rows) for name, rows in task.parts.items()},
        "labels": len(task.label_names),
        **count(trained.loaded.model),
        "base_unchanged": lab.pool.digest(task.kind) == spec.base,
        "train_seconds": round(trained.seconds, 2),
        "step_seconds": round(median_step(trained.step_seconds) or 0.0, 4),
        "train_tokens": trained.tokens,
        **environment(),
    }
    if spec.spans:
        part = lab.encode(task, kind, task.parts[VALIDATION], spec.settings())
        row["span_scores"] = score_spans(
            trained.loaded.model, lambda: kind.score(predict(trained.trainer, part), part)[task.metric]
        )
    if task.unlabelled and is_best(row, lab.store.rows().values()):
        row["predicted"] = predict_unlabelled(trained, spec, lab)
    return row


def train(spec: Spec, lab: Lab, report: Report) -> Trained:
    """Train the spec's method on its task."""
    task, settings = lab.tasks[spec.task], spec.settings()
    set_seed(spec.seed)
    loaded = lab.build(task, settings)
    prepare(loaded.model, spec)
    own_trained(loaded.model)
    rows = lab.encode(task, loaded.kind, task.parts[TRAIN], settings)
    directory = lab.store.directory / "trainer"
    parts = {TRAIN: rows, VALIDATION: None}
    trainer, watch = build_trainer(loaded, settings, parts, directory, report, save=False, by_length=True)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    tokens = spec.epochs * sum(map(len, rows.columns["input_ids"]))
    return Trained(loaded, trainer, watch.seconds, seconds, tokens)


def predict_unlabelled(trained: Trained, spec: Spec, lab: Lab) -> dict[str, str]:
    """By part, what is predicted for each row, in their order: class numbers, or numbers with three decimals."""
    task, kind = lab.tasks[spec.task], trained.loaded.kind
    found = {}
    for name, rows in task.unlabelled.items():
        logits = predict(trained.trainer, lab.encode(task, kind, rows, spec.settings()))
        decided = kind.decide(np.nan_to_num(logits))  # type: ignore[attr-defined]
        found[name] = " ".join(map(str, decided) if task.label_names else (f"{value:.3f}" for value in decided))
    return found


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
