"""The tuning recipe of Houlsby et al. 2019 (arXiv 1902.00751): what trains, in which groups, on which schedule.

Constants name their source: the paper's section, or a file of its code, google-research/adapter-bert at 1a31fc6.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from .placement.families import HEAD
from .placement.masters import convert_to_masters
from .placement.offloading import refuse_offloaded
from .placement.sites import (
    family_of,
    find_layers,
    is_norm,
    layer_norm_parameters,
    new_parameters,
    pretrained_parts,
    task_parameters,
    untrained_poolers,
)
from .placement.state import (
    activate,
    claim,
    find_state,
    refuse_quantised,
    refuse_shared,
    refuse_wrapped,
    require_state,
    unwrap,
)
from .placement.walk import CHILD, uncompiled_name

Model = TypeVar("Model", bound=nn.Module)

LEARNING_RATE = 3e-4  # adapter-bert README, the MRPC command; one of the paper's sweep
LEARNING_RATES = (3e-5, 3e-4, 3e-3)  # section 3.2, the sweep on GLUE
EPOCHS = (3, 20)  # section 3.2, the sweep on GLUE
BATCH_SIZE = 32  # section 3.1
WARMUP_SHARE = 0.1  # section 3.1: linear over the first 10 % of the steps, then linear to zero
WEIGHT_DECAY = 0.01  # adapter-bert optimization.py, create_optimizer: adapters too, LayerNorms and biases not
MAX_GRAD_NORM = 1.0  # adapter-bert optimization.py, clip_by_global_norm
ADAM_BETAS = (0.9, 0.999)  # adapter-bert optimization.py
ADAM_EPSILON = 1e-6  # adapter-bert optimization.py; unlike torch's AdamW its Adam has no bias correction


def _head_of(model: nn.Module, named: bool | Sequence[str] = True) -> list[str]:
    """The head's parameters: what a task makes anew, or those that are named."""
    head = task_parameters(model, named)
    _refuse_random(model, head, named)
    if named is not False and not head:
        raise ValueError(
            f"{type(model).__name__} has no task head ({', '.join(HEAD)}): pass head=False, or a model with one"
        )
    return head


def _refuse_random(model: nn.Module, head: list[str], named: bool | Sequence[str]) -> None:
    """Raise, or where the user left the head out warn, about what the checkpoint lacked and nothing trains."""
    new = new_parameters(model)
    if isinstance(named, bool):
        parts = tuple(f"{part}." for part in pretrained_parts(model))
        lost = [name for name in new if name.startswith(parts)]
    else:
        lost = [name for name in new if name not in head]
    if lost:
        raise ValueError(
            f"the checkpoint of {type(model).__name__} lacked {lost[0]} ({len(lost)} such), which would stay as "
            f"random as it was drawn: expected a checkpoint with it, or head with its name"
        )
    if named is False and (random := [*new, *untrained_poolers(model)]):
        warnings.warn(f"head=False leaves {random[0]} ({len(random)} such) frozen as randomly drawn", stacklevel=4)


def _train_only(model: nn.Module, names: set[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(uncompiled_name(name) in names)


def train_adapters(
    model: Model,
    name: str = "default",
    *,
    layer_norms: bool = True,
    head: bool | Sequence[str] = True,
    master_weights: bool = True,
) -> Model:
    """Freeze the model but the named adapter, all LayerNorms and the head, and activate the adapter (section 2).

    LayerNorms are the encoder's, the embeddings' included; where the adapter's `layers` leaves layers out, those that
    run behind the lowest adapter, so that the backward pass ends there. The head is what a task newly initialises
    (RoBERTa's and ELECTRA's classifier.dense and DistilBERT's pre_classifier included), and whatever else
    from_pretrained did not find in the checkpoint. A pooler that it found stays frozen, as in adapter-bert, unless its
    bias is all zeros: then no training ever reached it (MiniLM's), it is as random as a new head, and trains too.
    The LayerNorms and the head that train are this adapter's own parameters, in the places of the base's while it is
    active: save_adapters stores them, set_adapter switches them, and remove_adapters gives back the base's.

    Args:
        model: a model with an adapter of this name.
        name: the adapter to train.
        layer_norms: False leaves the LayerNorms frozen.
        head: False leaves the head frozen; needed for a model without one. Names of modules or parameters train these.
        master_weights: LayerNorms and head of a 16-bit base train in float32, and their modules go on computing in
            their input's dtype; False trains them in 16 bit, where small updates are lost.

    Returns:
        The model itself, changed in place; unchanged where an error is raised.

    Raises:
        ValueError: no adapter of this name, head=True on a model without a known head, a quantised parameter among
            what would train, a parameter outside of the head that the checkpoint lacked, or a model wrapped already.
    """
    refuse_wrapped(model, "train_adapters")
    base = unwrap(model)
    state = require_state(base, name)
    own = layer_norm_parameters(base, state.configs[name]) if layer_norms else []
    own = list(dict.fromkeys([*own, *_head_of(base, head)]))
    refuse_quantised(base, own)
    refuse_shared(base, own)
    refuse_offloaded(base, own)
    activate(base, state, name)
    claim(base, state, name, own, master_weights)
    within = f".{CHILD}.adapters.{name}."
    adapter = [uncompiled_name(parameter) for parameter, _ in base.named_parameters() if within in parameter]
    _train_only(base, {*adapter, *own})
    return model


def _refuse_adapters(model: nn.Module, function: str) -> None:
    state = find_state(model)
    if state is not None:
        raise ValueError(f"{function} is a baseline without adapters: remove {state.names()} first")


def _train_baseline(model: nn.Module, names: set[str]) -> None:
    refuse_quantised(model, names)
    convert_to_masters(model, names)
    _train_only(model, names)


def train_head_only(model: Model) -> Model:
    """Freeze the model but its head: a baseline. Returns the model; ValueError without a head or with adapters.

    In this and the other baselines what trains of a 16-bit model becomes float32 for good, and computes in 16 bit.
    """
    base = unwrap(model)
    _refuse_adapters(base, "train_head_only")
    _train_baseline(base, set(_head_of(base)))
    return model


def train_layer_norms(model: Model) -> Model:
    """Freeze the model but all LayerNorms and the head: a baseline (section 3.4). Returns the model; as above."""
    base = unwrap(model)
    _refuse_adapters(base, "train_layer_norms")
    _train_baseline(base, {*layer_norm_parameters(base), *_head_of(base)})
    return model


def train_top_layers(model: Model, layers: int) -> Model:
    """Freeze the model below its `layers` highest layers: the paper's variable fine-tuning (section 3.3), a baseline.

    What stands above them trains too: a last LayerNorm, the pooler, the head. The embeddings stay frozen even where
    all layers train.

    Args:
        model: a model of a known family with one stack of layers, and without adapters.
        layers: how many, from 1 to all.

    Raises:
        ValueError: a number of layers that the model has not, more stacks than one, layers that share their weights,
            no head, adapters.
    """
    base = unwrap(model)
    _refuse_adapters(base, "train_top_layers")
    head = _head_of(base)
    stack = [name for name, _ in find_layers(base, family_of(base))]
    if not 1 <= layers <= len(stack):
        raise ValueError(f"layers must be from 1 to {len(stack)}, the model's number of layers, got {layers}")
    if len({name.rpartition(".")[0] for name in stack}) > 1 or len(stack) < getattr(
        base.config, "num_hidden_layers", len(stack)
    ):
        raise ValueError(f"train_top_layers needs one stack of layers of their own, {type(base).__name__} has others")
    names = [name for name, _ in base.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith(f"{stack[-layers]}."))
    _train_baseline(base, {*names[first:], *head})
    return model


def train_all(model: Model) -> Model:
    """Train every parameter: full fine-tuning, a baseline. Returns the model; ValueError with adapters."""
    base = unwrap(model)
    _refuse_adapters(base, "train_all")
    _train_baseline(base, {name for name, _ in base.named_parameters()})
    return model


def optimizer_groups(model: nn.Module, weight_decay: float = WEIGHT_DECAY) -> list[dict[str, Any]]:
    """The trained parameters in two groups for AdamW: decayed, and not decayed (LayerNorms and biases).

    Raises:
        ValueError: nothing trains.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                (plain if is_norm(module) or name == "bias" else decayed).append(parameter)
    if not seen:
        raise ValueError(f"{type(model).__name__} has no parameter that trains: call train_adapters first")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def create_optimizer(
    model: nn.Module,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
    fused: bool | None = None,
) -> torch.optim.AdamW:
    """AdamW over optimizer_groups with the recipe's constants; for a Trainer: optimizers=(this, None).

    fused: as torch.optim.AdamW takes it.
    """
    groups = optimizer_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=fused)


def schedule_factor(step: int, total_steps: int, warmup_share: float = WARMUP_SHARE) -> float:
    """The learning rate's factor at a step: linear 0 → 1 over the warm-up, then linear to 0 at total_steps."""
    warmup = math.ceil(total_steps * warmup_share)
    if step < warmup:
        return step / warmup
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))


def create_scheduler(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_share: float = WARMUP_SHARE
) -> torch.optim.lr_scheduler.LambdaLR:
    """schedule_factor as a scheduler for a loop of your own, stepped once an optimiser step: Trainer's "linear"."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(step, total_steps, warmup_share))


def training_arguments_defaults() -> dict[str, Any]:
    """The recipe as keyword arguments of transformers.TrainingArguments (transformers 5)."""
    return {
        "optim": "adamw_torch",
        "learning_rate": LEARNING_RATE,
        "per_device_train_batch_size": BATCH_SIZE,
        "weight_decay": WEIGHT_DECAY,
        "adam_beta1": ADAM_BETAS[0],
        "adam_beta2": ADAM_BETAS[1],
        "adam_epsilon": ADAM_EPSILON,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP_SHARE,  # below 1 it is a share of all steps
        "max_grad_norm": MAX_GRAD_NORM,
    }
