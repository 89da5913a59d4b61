"""One step of a chain: the next task is learned, and every task so far is scored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

from ...common.digest import digest
from ...common.errors import UserError, first_line
from ...tasks.data.encoded import Encoded
from ...tasks.trainer import Report, build_trainer, median_step
from ...tasks.tuning import environment
from ..grid.cells import as_row
from ..grid.lab import Lab
from ..grid.spec import Spec
from ..grid.task import TEST, TRAIN, VALIDATION
from ..grid.train import predict
from .joint import JointLearner
from .kept import is_kept, keep_step, recall_step
from .learners import AdapterLearner, Learner
from .switch import measure_switch

ADAPTERS, SEQUENTIAL, JOINT = "adapters", "sequential", "joint"
NAMES = {ADAPTERS: "an adapter a task", SEQUENTIAL: "sequential fine-tuning", JOINT: "joint training"}
LEARNERS: Mapping[str, type[Learner]] = {ADAPTERS: AdapterLearner, SEQUENTIAL: Learner, JOINT: JointLearner}
VERSION = 2  # of what a step does: raise it when the same step would give another result


@dataclass(frozen=True)
class Step:
    """A job of the engine: a chain's last task is learned after the others, or, jointly, all of them at once.

    Attributes:
        method: "adapters", "sequential" or "joint".
        chain: how each task is learned, in the tasks' order.
    """

    method: str
    chain: tuple[Spec, ...]

    @property
    def key(self) -> str:
        """The step's name: a digest of the method and of the whole chain so far."""
        return digest({"version": VERSION, "method": self.method, "chain": [spec.key for spec in self.chain]})

    @property
    def label(self) -> str:
        """The step in words, for screens."""
        spec = self.chain[-1]
        what = f"{len(self.chain)} tasks" if self.method == JOINT else f"task {len(self.chain)}: {spec.task}"
        size = f", m = {spec.bottleneck}" if spec.bottleneck else ""
        return f"{NAMES[self.method]}, {what}{size}, lr {spec.lr:g}, {spec.epochs} epochs, seed {spec.seed}"

    @property
    def previous(self) -> Step | None:
        """The step whose state this one starts from."""
        return None if self.method == JOINT or len(self.chain) == 1 else Step(self.method, self.chain[:-1])

    def run(self, lab: Lab, report: Report) -> dict[str, Any]:
        """Do it; the row: each task's score and the largest change of its logits since it was learned.

        The state that the next step starts from is kept. Where that of the step before is gone, as when a finished
        chain gets another branch, that step is done again.
        """
        if self.previous is not None and not is_kept(lab.store.kept(self.previous.key)):
            self.previous.run(lab, report)
        return _run(self, lab, report)


def _run(step: Step, lab: Lab, report: Report) -> dict[str, Any]:
    spec, tasks = step.chain[-1], [lab.tasks[spec.task] for spec in step.chain]
    learner = LEARNERS[step.method](lab, step.chain)
    learned = {} if step.previous is None else recall_step(learner, lab.store.kept(step.previous.key))
    set_seed(spec.seed)  # behind what is recalled, so that a task draws the same weights as where it is learned alone
    try:
        while len(learner.models) < len(step.chain):
            learner.add()
        learner.prepare()
    except (TypeError, ValueError) as error:
        raise UserError(first_line(error)) from error
    directory = lab.store.directory / "trainer"
    start = time.perf_counter()
    step_seconds = learner.learn(directory, report)
    seconds = time.perf_counter() - start
    logits = [_logits(learner, i, directory, report) for i in range(len(tasks))]
    finite = [np.nan_to_num(values) for values in logits]
    learned = {str(i): values for i, values in enumerate(finite)} | learned
    if step.method != JOINT:
        keep_step(learner, learned, lab.store.kept(step.key))
    return {
        **as_row(spec),
        "key": step.key,
        "method": step.method,
        "chain": [as_row(each) for each in step.chain],
        "metrics": {task.name: task.metric for task in tasks},
        "scores": {
            task.name: own.kind.score(values, _part(learner, i))
            for i, (task, own, values) in enumerate(zip(tasks, learner.models, finite))
        },
        "largest_logit_change": {
            task.name: float(np.abs(values.astype(np.float64) - learned[str(i)]).max())
            for i, (task, values) in enumerate(zip(tasks, finite))
        },
        "diverged": not all(np.isfinite(values).all() for values in logits),
        "sizes": {name: len(rows) for name, rows in tasks[-1].parts.items()},
        "trained": sum(value.numel() for value in learner.trained.parameters() if value.requires_grad),
        "base_parameters": learner.base_parameters,
        "stored": {task.name: own for task, own in zip(tasks, learner.stored())},
        "switch": measure_switch(learner) if isinstance(learner, AdapterLearner) and len(tasks) > 1 else None,
        "steps": len(step_seconds),
        "train_seconds": round(seconds, 2),
        "step_seconds": round(median_step(step_seconds) or 0.0, 4),
        **_proof(learner, lab),
        **environment(),
    }


def _part(learner: Learner, number: int) -> Encoded:
    """What steps are compared on: a task's test part, or validation where the test labels are hidden."""
    spec, loaded = learner.chain[number], learner.models[number]
    task = learner.lab.tasks[spec.task]
    return learner.lab.encode(task, loaded.kind, task.parts.get(TEST, task.parts[VALIDATION]), spec.settings())


def _logits(learner: Learner, number: int, directory: Path, report: Report) -> np.ndarray:
    """A task's, with its adapter where there are adapters."""
    learner.activate(number)
    parts = {TRAIN: _part(learner, number), VALIDATION: None}
    settings = learner.chain[number].settings()
    trainer, _ = build_trainer(learner.models[number], settings, parts, directory, report, save=False)
    return predict(trainer, _part(learner, number))


def _proof(learner: Learner, lab: Lab) -> dict[str, Any]:
    """The trunk's digest before anything was learned and now, what tasks added taken out."""
    in_memory = lab.pool.digest(learner.models[0].kind) == learner.chain[0].base  # while the adapters are still in
    before, after = learner.base_before, learner.base_after()
    return {"base_before": before, "base_after": after, "base_unchanged": before == after and in_memory}
