"""transformers.Trainer with checkpoints of adapters alone, in place of the whole model's: AdapterCheckpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..placement.state import AdapterState, unwrap
from ..placement.walk import STATE, base_modules, base_parameters, is_ours

_SAVE, _IGNORED = "save_pretrained", "_keys_to_ignore_on_save"


class AdapterCheckpoints(TrainerCallback):
    """While Trainer trains, its checkpoints hold the adapters with their LayerNorms and heads, and not the base.

    Trainer(model, args, train_dataset=data, callbacks=[AdapterCheckpoints()]).train(resume_from_checkpoint=True)

    Resuming and load_best_model_at_end read them as they read any checkpoint, and load_adapters reads them too. A
    parameter of the base that trains although no adapter has it as its own is kept in them. Whatever else is saved,
    save_model and save_pretrained to a directory of another name, holds the whole model.

    For models of transformers on one process or under DistributedDataParallel; FSDP and DeepSpeed write checkpoints of
    their own.

    Raises:
        ValueError: when training begins, for a model without adapters.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Let the model write its part of a checkpoint so."""
        base = unwrap(objects["model"])
        if not _states(base):
            raise ValueError(f"{type(base).__name__} has no adapters for AdapterCheckpoints: add them before training")
        if hasattr(type(base), _SAVE):
            setattr(base, _SAVE, partial(_save_pretrained, base, state))

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The model's own way of saving is back."""
        unwrap(objects["model"]).__dict__.pop(_SAVE, None)


def _save_pretrained(base: Any, state: Any, save_directory: Any, *args: Any, **options: Any) -> None:
    """The model's save_pretrained; to the directory of the checkpoint of this step without what is frozen."""
    save = partial(type(base).save_pretrained, base, save_directory, *args, **options)
    if Path(save_directory).name != f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}":
        save()
        return
    before = dict(base.__dict__)
    setattr(base, _IGNORED, [*(getattr(base, _IGNORED, None) or []), *_frozen_keys(base)])
    try:
        save()
    finally:
        if _IGNORED in before:
            setattr(base, _IGNORED, before[_IGNORED])
        else:
            delattr(base, _IGNORED)


def _frozen_keys(base: nn.Module) -> list[str]:
    """The base's state-dict keys but those of what trains without being an adapter's own."""
    tuned = {f"{prefix}{name}" for prefix, of in _states(base) for names in of.tuned.values() for name in names}
    kept = {name for name, value in base_parameters(base) if value.requires_grad and name not in tuned}
    return [key for key in base.state_dict() if not is_ours(key) and key not in kept]


def _states(base: nn.Module) -> list[tuple[str, AdapterState]]:
    """The state of each module that adapters were added to, the model or parts of it, and the prefix of its names."""
    found: list[tuple[str, AdapterState]] = []
    for name, module in base_modules(base):
        if STATE in module._modules:
            found.append((f"{name}." if name else "", module._modules[STATE]))  # type: ignore[arg-type]
    return found
