"""One tuning run from settings to a finished output directory: claimed, resumable, and complete or not there."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import set_seed

from .. import __version__
from ..checkpoint import save_adapters
from ..common.directories import put_in_place
from ..common.errors import UserError
from ..common.files import write_json, writing
from ..common.quiet import quiet_transformers
from ..measure.machine import processor
from ..placement import adapter_summary
from ..placement.walk import count_parameters as parameters_in
from .checkpoints import newest_whole
from .kinds.settings import ADAPTER_METHODS, Settings, differences, read_settings
from .models import Loaded, check_max_length, load_model, prepare
from .record import RUN_FILE, START, check_start, process_count, read_record, start_of
from .splits import load_task
from .trainer import Report, TuningTrainer, build_trainer, check_reporting, median_step, precision_arguments

RESULTS_FILE = "results.json"
CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"
MODEL = "model"


@dataclass(frozen=True)
class Outcome:
    """What a run gives: its record, as written, and what it was scored on: the test part's logits.

    For question answering these are start and end logits, [windows, L, 2]; for language modelling each block's summed
    loss and its number of tokens, [blocks, 2].
    """

    results: dict[str, Any]
    logits: np.ndarray


def tune(
    settings: Settings, output: str | Path, *, resume: bool = False, checkpoints: bool = True, report: Report = print
) -> Outcome:
    """Tune a model on a task and write adapter (or model) and results.json to the output directory.

    Nothing is written before data and model are known to be good. results.json comes last and whole: a directory
    without it is an unfinished run, which resume=True takes up at its newest whole checkpoint, if settings, labels,
    examples and the model's weights are those that it was started with.

    Args:
        settings: what to do.
        output: a directory that is new or empty, or with resume the unfinished run's.
        resume: go on with the run in the directory; starts it where there is none yet.
        checkpoints: keep trainer checkpoints while running.
        report: called with progress events.

    Raises:
        UserError: one line on what was wrong with the input.
        WriteError: the output directory cannot be written; its last whole checkpoint stays.
    """
    with quiet_transformers():
        return _tune(settings, Path(output), resume, checkpoints, report)


def _tune(settings: Settings, output: Path, resume: bool, checkpoints: bool, report: Report) -> Outcome:
    first = is_first_process()
    then = check_output(output, settings, resume) if first else None
    data = load_task(settings)
    report({"event": "data", **data.summary()})
    set_seed(settings.seed)
    loaded = load_model(settings.model, data.kind, data.label_names)
    model, processor, kind, new_parameters = loaded
    now = start_of(data, loaded)
    unknown = [] if then is None else check_start(output, then, now)
    check_max_length(loaded, settings)
    prepare(loaded, settings)
    check_reporting(settings.report_to)
    parts = {
        name: None if part is None else kind.encode(part, processor, data.label_names, settings)
        for name, part in (("train", data.train), ("validation", data.validation))
    }
    test = kind.encode(data.test, processor, data.label_names, settings)
    if precision_arguments(settings.precision)["fp16"] and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU, and there is none: expected auto, fp32 or bf16")
    if first:
        _clear(output)
        write_json(output / RUN_FILE, {**settings.to_dict(), START: now})
    if unknown:
        told = (
            f"{RUN_FILE} is of an earlier version: it does not say with what {', '.join(unknown)} the run was started"
        )
        report({"event": "note", "text": told})
    report({"event": "ready", "sizes": data.sizes(), "labels": len(data.label_names), "new": new_parameters})
    trainer, watch = build_trainer(loaded, settings, parts, output / CHECKPOINTS, report, save=checkpoints)
    checkpoint = _go_on_from(output / CHECKPOINTS, report) if resume else None
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    train_seconds = time.perf_counter() - start
    report({"event": "evaluate"})
    prediction = trainer.predict(test, metric_key_prefix="test")
    logits = np.asarray(prediction.predictions, dtype=np.float32)
    chosen = {} if settings.metric is None else {settings.metric: trainer.scores[settings.metric]}
    metrics = {**chosen, **trainer.scores}
    results = {
        "kind": data.kind_name,
        "settings": settings.to_dict(),
        "learning_rate": settings.learning_rate,
        "max_length": kind.length(settings),
        "label_names": data.label_names,
        "sizes": data.sizes(),
        **count_parameters(model),
        "backends": backends(model, settings),
        "metrics": metrics,
        **(metrics if data.kind_name == "text-classification" else {}),
        "validation": _history(trainer, f"eval_{next(iter(metrics))}"),
        "losses": [loss for _, loss in _history(trainer, "loss")],
        "step_seconds": median_step(watch.seconds),
        "train_seconds": train_seconds,
        "peak_bytes": watch.peak.bytes,
        "peak_meaning": watch.peak.meaning,
        **environment(),
    }
    if first:
        _finish(output, loaded, settings, results)
    return Outcome(results, logits)


def is_first_process() -> bool:
    """Whether this process writes and prints: of those that torchrun or accelerate launch starts, one does."""
    return int(os.environ.get("RANK", "0")) == 0


def check_output(output: Path, settings: Settings, resume: bool) -> dict[str, Any] | None:
    """Raise unless the directory is free, or with resume holds this very run, unfinished: what it was started with."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file: expected a directory")
    if not output.exists() or not any(output.iterdir()):
        return None
    if not resume:
        raise UserError(f"output directory {output} is in use: name another, or go on with its run with --resume")
    path = output / RUN_FILE
    if not path.is_file():
        raise UserError(f"output directory {output} holds no run to resume: it has no {RUN_FILE}")
    if (output / RESULTS_FILE).exists():
        raise UserError(f"the run in {output} is finished: see its {RESULTS_FILE}")
    record = read_record(path)
    then = record.pop(START, {})
    changed = differences(settings, read_settings(record, str(path)))
    if changed:
        raise UserError(f"the run in {output} had other settings: {'; '.join(changed)}")
    return then


def _clear(output: Path) -> None:
    """Remove what a kill has left of files that were being written: under their own names they are whole."""
    for name in (RUN_FILE, ADAPTER, RESULTS_FILE):
        for path in output.glob(f".{name}.*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _go_on_from(checkpoints: Path, report: Report) -> str | None:
    """The newest whole checkpoint; those that are passed over are reported."""
    found, passed = newest_whole(checkpoints, process_count())
    for path, wrong in passed.items():
        report({"event": "note", "text": f"{path.name} is passed over: {wrong}"})
    if passed and found is None:
        report({"event": "note", "text": "no checkpoint is whole: the run begins anew"})
    return None if found is None else str(found)


def _finish(output: Path, loaded: Loaded, settings: Settings, results: dict[str, Any]) -> None:
    if settings.method in ADAPTER_METHODS:
        save_adapters(loaded.model, output / ADAPTER)
        results["saved_bytes"] = folder_bytes(output / ADAPTER)
    else:
        fresh = output / f".{MODEL}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        with writing(output / MODEL):
            try:
                loaded.model.save_pretrained(fresh)  # type: ignore[operator]
                loaded.processor.save_pretrained(fresh)
                put_in_place(fresh, output / MODEL)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        results["saved_bytes"] = folder_bytes(output / MODEL)
    write_json(output / RESULTS_FILE, results)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def folder_bytes(directory: Path) -> int:
    """The size of a directory's files together."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def count_parameters(model: nn.Module) -> dict[str, Any]:
    """Parameters that train, in all, and their share."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = parameters_in(model)
    return {"trained": trained, "parameters": total, "share": trained / total}


def backends(model: nn.Module, settings: Settings) -> list[str]:
    """What computes the adapters and why, one line each; empty without adapters."""
    if settings.method not in ADAPTER_METHODS:
        return []
    return list(dict.fromkeys(f"{site.backend}: {site.reason}" for site in adapter_summary(model).sites))


def environment() -> dict[str, Any]:
    """The device and the versions a result was made with."""
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "processor": processor(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "threads": None if on_gpu else torch.get_num_threads(),
        "versions": {
            "adapter_fast": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _history(trainer: TuningTrainer, name: str) -> list[tuple[float, float]]:
    return [(entry["step"], entry[name]) for entry in trainer.state.log_history if name in entry]
