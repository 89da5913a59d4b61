"""Joint multi-task training: all tasks at once, batches of one task each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from ...recipe import train_all
from ...tasks.data.encoded import Encoded
from ...tasks.models import Loaded
from ...tasks.trainer import Report, build_trainer
from ..grid.pool import own_trained
from ..grid.spec import Spec
from ..grid.task import TRAIN, VALIDATION
from .learners import Learner


def common_settings(chain: Sequence[Spec]) -> tuple[Spec, ...]:
    """The chain with one learning rate and number of epochs: what most of its tasks have, of several the first."""
    lr, epochs = Counter((spec.lr, spec.epochs) for spec in chain).most_common(1)[0][0]
    return tuple(replace(spec, lr=lr, epochs=epochs) for spec in chain)


class JointModel(nn.Module):
    """Models of one trunk as one: a batch goes through that of its task."""

    accepts_loss_kwargs = False  # read by Trainer: the loss is the batch's mean as it is

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, task: int, inputs: dict[str, Any]) -> Any:
        """The output of the task's model, its loss among it."""
        return self.models[task](**inputs)


class TaskBatches(Dataset[dict[str, Any]]):
    """Batches as items: every pass has each example of each task once, so tasks come up in proportion to their size.

    Args:
        parts, collators: one a task. size: examples a batch.
    """

    def __init__(self, parts: Sequence[Encoded], collators: Sequence[Any], size: int) -> None:
        self.parts, self.collators, self.size = parts, collators, size
        self.shuffle()

    def shuffle(self) -> None:
        """Put other examples together, by torch's generator."""
        self.batches = [
            (task, chosen.tolist())
            for task, part in enumerate(self.parts)
            for chosen in torch.randperm(len(part)).split(self.size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        task, chosen = self.batches[index]
        return {"task": task, "inputs": self.collators[task]([self.parts[task][i] for i in chosen])}


class Reshuffle(TrainerCallback):
    """New batches for every pass."""

    def __init__(self, batches: TaskBatches) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the pass reads its first batch."""
        self.batches.shuffle()


class JointLearner(Learner):
    """One trunk and a head a task, all trained at once: what needs the data of all tasks together."""

    def prepare(self) -> None:
        """Everything trains."""
        self.trained = own_trained(train_all(JointModel([loaded.model for loaded in self.models])))

    def learn(self, directory: Path, report: Report) -> list[float]:
        """Train all tasks with as many passes over each; the seconds of each step."""
        settings = self.chain[-1].settings()
        tasks = [self.lab.tasks[spec.task] for spec in self.chain]
        parts = [
            self.lab.encode(task, loaded.kind, task.parts[TRAIN], settings) for task, loaded in zip(tasks, self.models)
        ]
        collators = [loaded.kind.collator(loaded.processor, settings) for loaded in self.models]
        batches = TaskBatches(parts, collators, settings.batch_size)
        whole = Loaded(self.trained, self.models[0].processor, self.models[0].kind, [])
        settings = replace(settings, batch_size=1)  # an item is a batch already
        none = {TRAIN: None, VALIDATION: None}
        trainer, watch = build_trainer(whole, settings, none, directory, report, save=False)
        trainer.train_dataset, trainer.data_collator = batches, next_item
        trainer.add_callback(Reshuffle(batches))
        trainer.train()
        return watch.seconds


def next_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The only one."""
    return items[0]
