"""Models of several tasks around one trunk, and how a method learns the next task with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...checkpoint import load_adapters, save_adapters
from ...checkpoint.record.collect import collect
from ...common.digest import weights_digest
from ...config import AdapterConfig
from ...placement import add_adapters, remove_adapters, set_adapter
from ...recipe import train_adapters, train_all
from ...tasks.models import Loaded
from ...tasks.trainer import Report, build_trainer
from ..grid.lab import Lab
from ..grid.pool import own_trained
from ..grid.spec import Spec
from ..grid.task import TRAIN, VALIDATION


class Learner:
    """Sequential fine-tuning: every task trains the whole trunk and a head of its own.

    Attributes:
        models: one a task, in the chain's order; the trunk (transformers' base model) is one module in all of them.
        trained: what learn trains, set by prepare.
        base_before, base_parameters: digest and size of the trunk as the base has it.
    """

    trained: nn.Module

    def __init__(self, lab: Lab, chain: Sequence[Spec]) -> None:
        self.lab, self.chain = lab, chain
        self.models: list[Loaded] = []
        self.base_before = ""
        self.base_parameters = 0

    @property
    def trunk(self) -> Any:
        """What all tasks' models share."""
        model: Any = self.models[0].model
        return model.base_model

    def head(self, number: int) -> dict[str, Tensor]:
        """A task's own part of the model by parameter name: what is outside the trunk."""
        model: Any = self.models[number].model
        within = f"{model.base_model_prefix}."
        return {name: value for name, value in model.state_dict().items() if not name.startswith(within)}

    def add(self) -> None:
        """Build the model of the chain's next task, with a new head, around the trunk."""
        spec = self.chain[len(self.models)]
        loaded = self.lab.build(self.lab.tasks[spec.task], spec.settings())
        model: Any = loaded.model
        if self.models:
            setattr(model, model.base_model_prefix, self.trunk)
        else:
            self.base_before = weights_digest(model.base_model.state_dict())
            self.base_parameters = sum(parameter.numel() for parameter in model.base_model.parameters())
        self.models.append(loaded)

    def prepare(self) -> None:
        """Set what the last task trains."""
        self.trained = own_trained(train_all(self.models[-1].model))

    def learn(self, directory: Path, report: Report) -> list[float]:
        """Train the last task; the seconds of each step."""
        loaded, spec = self.models[-1], self.chain[-1]
        task, settings = self.lab.tasks[spec.task], spec.settings()
        parts = {TRAIN: self.lab.encode(task, loaded.kind, task.parts[TRAIN], settings), VALIDATION: None}
        trainer, watch = build_trainer(loaded, settings, parts, directory, report, save=False, by_length=True)
        trainer.train()
        return watch.seconds

    def activate(self, number: int) -> None:
        """Make the trunk that of a task: here it is the same for all."""

    def save(self, directory: Path) -> dict[str, Tensor]:
        """The trunk, as the next step needs it."""
        return dict(self.trunk.state_dict())

    def load(self, directory: Path, trunk: dict[str, Tensor]) -> None:
        """What save gave, as the trunk's weights; the pool's memory is left."""
        self.trunk.load_state_dict(trunk, assign=True)

    def stored(self) -> list[dict[str, int]]:
        """Parameters that each task has stored beside the trunk."""
        return [{"head": _size(self.head(i))} for i in range(len(self.models))]

    def base_after(self) -> str:
        """The digest of the trunk without what tasks added to it; call it last."""
        return weights_digest(self.trunk.state_dict())


class AdapterLearner(Learner):
    """An adapter a task in one frozen trunk, each with LayerNorms (and an untrained pooler) of its own, and a head."""

    def prepare(self) -> None:
        """A new adapter in the trunk, with LayerNorms and head to train."""
        name = adapter_name(len(self.models) - 1)
        add_adapters(self.trunk, AdapterConfig.houlsby(bottleneck=self.chain[-1].bottleneck), name)
        train_adapters(self.trunk, name)  # an untrained pooler too; the head is outside, and trains already
        self.trained = own_trained(self.models[-1].model)

    def activate(self, number: int) -> None:
        """Switch to the task's adapter and LayerNorms."""
        set_adapter(self.trunk, adapter_name(number))

    def save(self, directory: Path) -> dict[str, Tensor]:
        """The adapters with their LayerNorms, a folder each; the trunk is the base."""
        for i in range(len(self.models)):
            save_adapters(self.trunk, directory / adapter_name(i), adapter_name(i))
        return {}

    def load(self, directory: Path, trunk: dict[str, Tensor]) -> None:
        """What save wrote."""
        for i in range(len(self.models)):
            load_adapters(self.trunk, directory / adapter_name(i))

    def stored(self) -> list[dict[str, int]]:
        """Adapter, LayerNorms and head of each task."""
        found = []
        for i, own_head in enumerate(super().stored()):
            tensors = collect(self.trunk, adapter_name(i)).tensors
            sizes = {
                part: _size({key: value for key, value in tensors.items() if key.startswith(f"{part}.")})
                for part in ("adapter", "layer_norm", "head")
            }
            found.append({**sizes, "head": sizes["head"] + own_head["head"]})
        return found

    def base_after(self) -> str:
        """All adapters are removed first, which brings the base's LayerNorms back."""
        return weights_digest(remove_adapters(self.trunk).state_dict())


def adapter_name(number: int) -> str:
    """An adapter's name: tasks' own names may have dots."""
    return f"task{number}"


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())
