"""What it takes to switch from one task to another: the bytes that differ, and the time."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from ...common.digest import weights_digest
from ...placement.walk import TUNED, is_ours
from .learners import AdapterLearner, adapter_name

ROUNDS = 20  # through all tasks


def measure_switch(learner: AdapterLearner) -> dict[str, Any]:
    """Switch through all tasks, each adapter in the model's memory.

    Returns:
        bytes: by position in the chain, the size of the tensors that the task's forward pass reads and that differ from
            those of the task before it (for the first, the last): found by comparing all of them.
        model_bytes: the size of all that it reads; the largest over tasks.
        milliseconds: the median of `switches` calls of set_adapter.
    """
    read = [_read_by(learner, i) for i in range(len(learner.models))]
    moved = [
        sum(size for name, (found, size) in own.items() if before.get(name, ("", 0))[0] != found)
        for before, own in zip([read[-1], *read[:-1]], read)
    ]
    seconds = [_timed(learner, i) for _ in range(ROUNDS) for i in range(len(learner.models))]
    return {
        "bytes": moved,
        "model_bytes": max(sum(size for _, size in own.values()) for own in read),
        "milliseconds": round(1000 * statistics.median(seconds), 4),
        "switches": len(seconds),
    }


def _read_by(learner: AdapterLearner, number: int) -> dict[str, tuple[str, int]]:
    """Digest and size of every parameter that a task's forward pass reads, an adapter's without its name."""
    learner.activate(number)
    active = f".{adapter_name(number)}."
    parameters = learner.models[number].model.named_parameters()
    return {
        name.replace(active, "."): (weights_digest({"": value}), value.nbytes)
        for name, value in parameters
        if not is_ours(name) or (active in name and TUNED not in name)
    }


def _timed(learner: AdapterLearner, number: int) -> float:
    _wait()
    start = time.perf_counter()
    learner.activate(number)
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
