"""transformers.Trainer with checkpoints of adapters alone, in place of the whole model's.

from adapter_fast.integrations.trainer import AdapterCheckpoints
Trainer(model, args, train_dataset=data, callbacks=[AdapterCheckpoints()]).train(resume_from_checkpoint=True)
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback

from ..placement.state import AdapterState, unwrap
from ..placement.walk import STATE, base_modules, base_parameters, is_ours

_IGNORED = "_keys_to_ignore_on_save"


class AdapterCheckpoints(TrainerCallback):
    """While Trainer trains, its checkpoints hold the adapters with their LayerNorms and heads, and not the base.

    Resuming and load_best_model_at_end read them as they read any checkpoint, and load_adapters reads them too. A
    parameter of the base that trains although no adapter has it as its own is kept in them. After training
    save_model and save_pretrained write the whole model again.

    For models of transformers on one process or under DistributedDataParallel; FSDP and DeepSpeed write checkpoints of
    their own.

    Raises:
        ValueError: when training begins, for a model without adapters.
    """

    def __init__(self) -> None:
        self._before: Any = None  # the model's own list

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Leave out what is frozen."""
        base = unwrap(objects["model"])
        if not _states(base):
            raise ValueError(f"{type(base).__name__} has no adapters for AdapterCheckpoints: add them before training")
        self._before = getattr(base, _IGNORED, None)
        self._leave_out(base)

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """What trains may have changed since."""
        if control.should_save:
            self._leave_out(unwrap(objects["model"]))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """As on_step_end."""
        self.on_step_end(args, state, control, **objects)

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The model is saved whole again."""
        setattr(unwrap(objects["model"]), _IGNORED, self._before)

    def _leave_out(self, base: nn.Module) -> None:
        tuned = {f"{prefix}{name}" for prefix, of in _states(base) for names in of.tuned.values() for name in names}
        kept = {name for name, value in base_parameters(base) if value.requires_grad and name not in tuned}
        frozen = [key for key in base.state_dict() if not is_ours(key) and key not in kept]
        setattr(base, _IGNORED, [*(self._before or []), *frozen])


def _states(base: nn.Module) -> list[tuple[str, AdapterState]]:
    """The state of each module that adapters were added to, the model or parts of it, and the prefix of its names."""
    found: list[tuple[str, AdapterState]] = []
    for name, module in base_modules(base):
        if STATE in module._modules:
            found.append((f"{name}." if name else "", module._modules[STATE]))  # type: ignore[arg-type]
    return found
