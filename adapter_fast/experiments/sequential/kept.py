"""What a step keeps on disk for the next one: the trunk or the adapters, the heads, the logits of each task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors.torch import load_file, save
from torch import Tensor

from ...common.files import write_whole
from ...tasks.checkpoints import file_fault
from .learners import Learner

TRUNK, HEADS, LAST_WRITTEN = "trunk.safetensors", "heads.safetensors", "logits.safetensors"


def is_kept(directory: Path) -> bool:
    """Whether a step's state is there, whole."""
    there = all((directory / name).is_file() for name in (HEADS, LAST_WRITTEN))
    return there and not any(file_fault(path) for path in directory.rglob("*") if path.is_file())


def keep_step(learner: Learner, logits: dict[str, np.ndarray], directory: Path) -> None:
    """Write the learner's state and each task's logits as they were when it was learned, by its number."""
    heads = {f"{i}.{name}": value for i in range(len(learner.models)) for name, value in learner.head(i).items()}
    trunk = learner.save(directory)
    if trunk:
        write_whole(directory / TRUNK, _bytes(trunk))
    write_whole(directory / HEADS, _bytes(heads))
    write_whole(directory / LAST_WRITTEN, safetensors.numpy.save(logits))


def recall_step(learner: Learner, directory: Path) -> dict[str, np.ndarray]:
    """Bring a new learner to the state that its chain's last step but one kept; the logits that were kept."""
    for _ in learner.chain[:-1]:
        learner.add()
    learner.load(directory, load_file(directory / TRUNK) if (directory / TRUNK).is_file() else {})
    for name, value in load_file(directory / HEADS).items():
        number, _, parameter = name.partition(".")
        learner.models[int(number)].model.load_state_dict({parameter: value}, strict=False, assign=True)
    return safetensors.numpy.load_file(directory / LAST_WRITTEN)


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
