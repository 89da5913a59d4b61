"""SIGKILL at any moment of `tune`, then --resume: bit for bit the run that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_task import write_image_model, write_images, write_model, write_task

WORKER = Path(__file__).parents[1] / "helpers/kill_worker.py"
STARTS = {
    "with nothing but its record": 0,
    "before the first checkpoint": 0,
    "in the first checkpoint": 0,
    "in a checkpoint, behind the weights": 3,
    "in the optimizer's file": 3,
    "in the random state's file": 3,
    "before the trainer's state": 3,
    "before an old checkpoint is removed": 9,
    "between checkpoints": 6,
    "when trained": 10,
    "before its adapter has its name": 10,
    "before its results": 10,
    "three times": 6,
}
# Where all of a model trains, another writer is at work, at its end alone.
OF_ALL = ["in the optimizer's file", "between checkpoints", "before its adapter has its name", "before its results"]
MODELS = {
    "bert": ("fused", list(STARTS)),
    "vit": ("fused", list(STARTS)),
    "bert, all of it": ("full", OF_ALL),
    "vit, all of it": ("full", OF_ALL),
}
PASSED = {
    "in the first checkpoint": ["checkpoint-3 is passed over: it has no trainer_state.json", "no checkpoint is whole"],
    "in a checkpoint, behind the weights": ["checkpoint-6 is passed over: it has no optimizer state"],
    "in the optimizer's file": ["checkpoint-6 is passed over: it has no scheduler state"],
    "in the random state's file": ["checkpoint-6 is passed over: it has no trainer_state.json"],
    "before the trainer's state": ["checkpoint-6 is passed over: it has no trainer_state.json"],
}


def killed_runs(folder: Path, model: str) -> dict[str, Any]:
    if model.startswith("bert"):
        write_model(folder / "model")
        task = write_task(folder / "task.csv", rows=60)
    else:
        write_image_model(folder / "model")
        task = write_images(folder / "images", images=20)
    settings = {"model": str(folder / "model"), "task": str(task), "method": MODELS[model][0], "bottleneck": 4}
    settings |= {"epochs": 2, "batch_size": 8, "max_length": 16, "lr": 1e-2, "validation_size": 8, "train_size": 40}
    (folder / "settings.json").write_text(json.dumps(settings))
    paths = os.pathsep.join([str(WORKER.parents[2]), str(WORKER.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(WORKER), str(folder), *MODELS[model][1]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """A model's runs, made when they are first asked for."""
    return cache(lambda model: killed_runs(tmp_path_factory.mktemp("killed"), model))


@pytest.mark.slow
@pytest.mark.parametrize("model, moment", [(model, moment) for model, (_, all_) in MODELS.items() for moment in all_])
def test_a_run_killed_with_sigkill_at_any_moment_resumes_to_the_same_bits(
    runs: Callable[[str], dict[str, Any]], model: str, moment: str
) -> None:
    found = runs(model)
    code, whole = found["whole"]
    assert (code, whole["start"], whole["notes"]) == (0, 0, [])
    ends, code, resumed = found[moment]
    assert set(ends) == {-signal.SIGKILL} and code == 0
    assert resumed["start"] == STARTS[moment]
    told = PASSED.get(moment, [])
    assert len(resumed["notes"]) == len(told)
    assert all(note.startswith(text) for note, text in zip(resumed["notes"], told, strict=True))
    assert resumed["losses"] == whole["losses"]
    assert (resumed["logits"], resumed["files"]) == (whole["logits"], whole["files"])
    assert resumed["names"] == whole["names"]
