"""One tuning run from settings to a finished output directory: claimed, resumable, and complete or not there."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
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
from ..common.files import write_json
from ..common.quiet import quiet_transformers
from ..placement import adapter_summary
from .kinds.settings import ADAPTER_METHODS, Settings, differences
from .models import Loaded, check_max_length, load_model, prepare
from .splits import load_task
from .trainer import Report, TuningTrainer, build_trainer, check_reporting, median_step, precision_arguments

RUN_FILE = "run.json"
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
    without it is an unfinished run, which resume=True takes up at its last complete checkpoint.

    Args:
        settings: what to do.
        output: a directory that is new or empty, or with resume the unfinished run's.
        resume: go on with the run in the directory; starts it where there is none yet.
        checkpoints: keep trainer checkpoints while running.
        report: called with progress events.

    Raises:
        UserError: one line on what was wrong with the input.
    """
    with quiet_transformers():
        return _tune(settings, Path(output), resume, checkpoints, report)


def _tune(settings: Settings, output: Path, resume: bool, checkpoints: bool, report: Report) -> Outcome:
    first = is_first_process()
    if first:
        check_output(output, settings, resume)
    data = load_task(settings)
    report({"event": "data", **data.summary()})
    set_seed(settings.seed)
    loaded = load_model(settings.model, data.kind, data.label_names)
    model, processor, kind, new_parameters = loaded
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
        _claim(output, settings)
    report({"event": "ready", "sizes": data.sizes(), "labels": len(data.label_names), "new": new_parameters})
    trainer, watch = build_trainer(loaded, settings, parts, output / CHECKPOINTS, report, save=checkpoints)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=last_checkpoint(output / CHECKPOINTS) if resume else None)
    train_seconds = time.perf_counter() - start
    report({"event": "evaluate"})
    prediction = trainer.predict(test, metric_key_prefix="test")
    logits = np.asarray(prediction.predictions, dtype=np.float32)
    metrics = trainer.scores
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


def check_output(output: Path, settings: Settings, resume: bool) -> None:
    """Raise unless the directory is free, or with resume holds this very run, unfinished."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file: expected a directory")
    if not output.exists() or not any(output.iterdir()):
        return
    if not resume:
        raise UserError(f"output directory {output} is in use: name another, or go on with its run with --resume")
    record = output / RUN_FILE
    if not record.is_file():
        raise UserError(f"output directory {output} holds no run to resume: it has no {RUN_FILE}")
    if (output / RESULTS_FILE).exists():
        raise UserError(f"the run in {output} is finished: see its {RESULTS_FILE}")
    changed = differences(settings, json.loads(record.read_text("utf-8")))
    if changed:
        raise UserError(f"the run in {output} had other settings: {'; '.join(changed)}")


def last_checkpoint(directory: Path) -> str | None:
    """The newest complete checkpoint; the trainer's state is what it writes last."""
    found = sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path in found if _is_json(path / "trainer_state.json")), None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _claim(output: Path, settings: Settings) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / RUN_FILE, settings.to_dict())
    except OSError as error:
        raise UserError(f"output directory {output} cannot be written: {error.strerror}") from None


def _finish(output: Path, loaded: Loaded, settings: Settings, results: dict[str, Any]) -> None:
    if settings.method in ADAPTER_METHODS:
        save_adapters(loaded.model, output / ADAPTER)
        results["saved_bytes"] = folder_bytes(output / ADAPTER)
    else:
        fresh = output / f".{MODEL}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        loaded.model.save_pretrained(fresh)  # type: ignore[operator]
        loaded.processor.save_pretrained(fresh)
        put_in_place(fresh, output / MODEL)
        results["saved_bytes"] = folder_bytes(output / MODEL)
    write_json(output / RESULTS_FILE, results)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def folder_bytes(directory: Path) -> int:
    """The size of a directory's files together."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def count_parameters(model: nn.Module) -> dict[str, Any]:
    """Parameters that train, in all, and their share."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
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
        "threads": None if on_gpu else torch.get_num_threads(),
        "versions": {
            "adapter_fast": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _history(trainer: TuningTrainer, name: str) -> list[tuple[float, float]]:
    return [(entry["step"], entry[name]) for entry in trainer.state.log_history if name in entry]
