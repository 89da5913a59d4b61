"""In words how a call would run: launches, conversions and copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .layout import needs_copy
from .problem import kernels, problem

if TYPE_CHECKING:
    from adapter_fast.kernels.shapes import LaunchConfig, Problem


def describe(x: Tensor, dtype: torch.dtype, w_down: Tensor, w_up: Tensor, backend: str) -> list[str]:
    """Phrases on how a call with these tensors would run: launches, conversions and copies."""
    phrases = []
    if backend != "torch":
        phrases.append(launch_form(x.device, dtype, w_down.dtype, max(1, x.numel() // x.shape[-1]), *w_up.shape))
    if needs_copy(x):
        phrases.append(f"x is copied first: its strides {list(x.stride())} are not rows of unit stride")
    for name, weight in (("w_down", w_down), ("w_up", w_up)):
        if backend != "torch" and not weight.is_contiguous():
            phrases.append(f"{name} is copied first: it is not contiguous")
    return phrases


def launch_form(device: torch.device, dtype: torch.dtype, weight_dtype: torch.dtype, T: int, d: int, m: int) -> str:
    """One phrase on how many launches the two directions take, and why."""
    tiles = kernels("tiles")
    given = problem(device, dtype, weight_dtype, T, d, m)
    settings = {"forward": tiles.converted("forward", given), "dx": tiles.converted("backward", given)}
    chosen = {phase: tiles.select_tiles(phase, setting) for phase, setting in settings.items()}
    split: dict[str, list[str]] = {}
    for phase, config in chosen.items():
        if config.form == "split":
            split.setdefault(_why(phase, config, settings[phase]), []).append(phase)
    phrases = [f"two launches for {' and '.join(phases)} at m = {m}: {why}" for why, phases in split.items()]
    phrases = phrases or [f"one fused launch each way at m = {m}"]
    phrases += [
        f"the {config.form} form, {_why(phase, config, settings[phase])}"
        for phase, config in chosen.items()
        if config.form in kernels("offers").OPTIONAL_FORMS
    ]
    converting = [name for name in ("forward", "backward") if tiles.converted(name, given) != given]
    if converting:
        phrases.append(f"weights converted once a call in the {' and the '.join(converting)}")
    return "; ".join(phrases)


def _why(phase: str, config: LaunchConfig, setting: Problem) -> str:
    """Where a choice that is not the fused form comes from."""
    shapes = kernels("shapes")
    if (phase, config) in setting.forced:
        return "forced"
    if config.form in setting.optional:
        return "asked for"
    if config == kernels("tuned").choice(phase, setting):
        return "measured"
    if (shapes.family(setting.arch), shapes.kind(setting), shapes.padded(setting.M)) in kernels("tables").BY_MODEL:
        return "by the model of traffic they move less than one, which is not measured yet"
    return "a fused tile of that width does not fit"
