"""What an experiment is asked to do: data, sizes, the sweep; the paper's values are each experiment's defaults."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...common.errors import UserError
from ...recipe import BATCH_SIZE
from ...tasks.kinds.settings import PRECISIONS, check_part_size
from .spec import METHODS


@dataclass(frozen=True)
class Options:
    """One experiment's settings.

    Attributes:
        data: corpora by name, files or folders; which of them, the experiment says.
        tasks: those to take of GLUE's folder; none: all that are complete.
        seeds: runs of each choice that is reported. sweep_seeds: how many of them try every choice; None is all.
        task_seeds, task_epochs: in place of seeds and epochs for the tasks named.
        rates: learning rates by method; "adapters" stands in for a method without its own, for "top" "full" does.
        bottlenecks, tops: m of adapters, k of the top layers that are fine-tuned.
        budget: the share of the base's parameters that adapters and LayerNorms may have; m follows from it.
        init_stds: standard deviations of the initial weights; the ablation's.
        *_size: counts, or fractions below 1, of each task's examples.
    """

    model: str = "minilm"
    data: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: int = 5
    sweep_seeds: int | None = None
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    epochs: tuple[int, ...] = (3,)
    task_seeds: Mapping[str, int] = field(default_factory=dict)
    task_epochs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bottlenecks: tuple[int, ...] = (64,)
    tops: tuple[int, ...] = ()
    budget: float | None = None
    init_stds: tuple[float, ...] = ()
    batch_size: int = BATCH_SIZE
    max_length: int = 128
    stride: int | None = None
    train_size: float | None = None
    validation_size: float | None = None
    test_size: float | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("seeds", "sweep_seeds", "batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        own = [(f"epochs of {task}", values) for task, values in self.task_epochs.items()]
        own += [(f"seeds of {task}", (value,)) for task, value in self.task_seeds.items()]
        for name, values in (*((name, getattr(self, name)) for name in ("epochs", "bottlenecks", "tops")), *own):
            if any(value < 1 for value in values):
                raise UserError(f"{name} must be whole numbers from 1 on, got {min(values)}")
        for name in ("train_size", "validation_size", "test_size"):
            check_part_size(name, getattr(self, name))
        rates = [(f"lr of {method}", rate) for method, values in self.rates.items() for rate in values]
        for name, value in (*rates, *(("init_std", std) for std in self.init_stds)):
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} must be a positive number, got {value}")
        unknown = sorted(set(self.rates) - set(METHODS))
        if unknown:
            raise UserError(f"lr: {unknown[0]!r} is no method: expected one of {', '.join(METHODS)}")
        if self.budget is not None and not 0 < self.budget < 1:
            raise UserError(f"budget must be between 0 and 100 %, got {100 * self.budget:g} %")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    def rates_of(self, method: str) -> tuple[float, ...]:
        """The learning rates to try for a method: its own, for top layers full's, else the adapters'."""
        return self.rates.get(method) or (self.rates_of("full") if method == "top" else self.rates["adapters"])

    def seeds_of(self, task: str) -> int:
        """Runs of each choice that is reported, for a task."""
        return self.task_seeds.get(task, self.seeds)

    def epochs_of(self, task: str) -> tuple[int, ...]:
        """The numbers of epochs to try for a task."""
        return self.task_epochs.get(task, self.epochs)

    def check_tasks(self, names: Collection[str]) -> None:
        """Raise UserError where seeds or epochs are given for a task that is none of these."""
        for option, given in (("seeds", self.task_seeds), ("epochs", self.task_epochs)):
            unknown = [task for task in given if task not in names]
            if unknown:
                raise UserError(f"--{option} {unknown[0]}=…: no such task: expected one of {', '.join(names)}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Options:
        """The options of a results file."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in known
        }
        for name in ("rates", "task_epochs"):
            given[name] = {key: tuple(own) for key, own in values.get(name, {}).items()}
        return cls(**given)
