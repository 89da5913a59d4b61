"""LoRA by the PEFT library, with as many parameters as the adapters it is compared with."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from adapter_fast.benchmarks.cases.budgets import lora_parameters, nearest
from adapter_fast.benchmarks.cases.whole_models import ModelCase
from adapter_fast.benchmarks.peers.build import base_model, randomize
from adapter_fast.benchmarks.peers.contender import Unavailable

TARGETS = {"bert": ("query", "value"), "gpt2": ("c_attn",)}  # the LoRA paper's choice; GPT-2 has q, k and v in one


def lora_rank(case: ModelCase) -> int:
    """r, for as many parameters as the case allows."""
    return nearest(lora_parameters(case.hidden, case.layers), case.parameters)


def lora_model(case: ModelCase, device: str, merged: bool = False) -> nn.Module:
    """The case's model under PEFT, random matrices; for a step the head trains too.

    merged: the matrices are multiplied into weights of the model's own, and PEFT is gone.

    Raises:
        Unavailable: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise Unavailable(f"peft is not installed: pip install peft ({error})") from error

    rank = lora_rank(case)
    base: Any = base_model(case, device, own=lambda name: merged and _is_target(name))
    family = base.config.model_type
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=list(TARGETS[family]),
        fan_in_fan_out=family == "gpt2",
        modules_to_save=["classifier"] if case.phase == "step" else None,
    )
    # Its matrices in the base's dtype: else a 16-bit model would change to float32 and back at each of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT calls what transformers 5.23 deprecates
        model: Any = get_peft_model(base, config, autocast_adapter_dtype=False)
    randomize(value for name, value in model.named_parameters() if ".lora_" in name)
    return model.merge_and_unload() if merged else model


def _is_target(name: str) -> bool:
    return any(f".{target}." in name for targets in TARGETS.values() for target in targets)
