"""Optional forms of the forward: each is offered here, launched in forms/, and held right by a test of its own.

The rules take none by itself: it is measured to be the fastest (tuned/), or asked for. Pure Python, no triton import.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module

from .shapes import TOKENS, LaunchConfig, Problem, family

OPTIONAL_FORMS = ("sliced",)  # forms/NAME.py with a function launch()
VARIABLE = "ADAPTER_FAST_KERNELS"  # where a user names them, separated by commas


def requested_forms() -> tuple[str, ...]:
    """The optional forms that the environment variable names.

    Raises:
        ValueError: a name that is none of OPTIONAL_FORMS.
    """
    text = os.environ.get(VARIABLE, "")
    return _parse_forms(text) if text else ()


@cache
def _parse_forms(text: str) -> tuple[str, ...]:
    names = tuple(sorted({name.strip() for name in text.split(",") if name.strip()}))
    for name in names:
        if name not in OPTIONAL_FORMS:
            raise ValueError(f"{VARIABLE} must name forms out of {', '.join(OPTIONAL_FORMS)}, got {name!r}")
    return names


def offered(config: LaunchConfig, problem: Problem) -> LaunchConfig:
    """The forward's form that was asked for, where it can be had.

    The sliced form adds up its slices one by one, so where few tokens take it more tokens must be summed like that too.
    """
    if problem.unit_m == 1 or problem.x_bytes != 2 or family(problem.arch) != "sm_90" or config.BLOCK_M > 128:
        return config
    # Slices of 128 columns and m = 128 leave too few registers.
    if "sliced" in problem.optional and config.form == "fused" and (problem.D <= 1024 or config.BLOCK_M <= 64):
        block_d, stages = (64, config.num_stages) if problem.D <= 1024 else (128, 2)
        if problem.tokens == TOKENS[0]:
            return LaunchConfig("sliced", 64, block_d, config.BLOCK_M, 8, 1, partial_sums=True)
        return replace(config, BLOCK_D=block_d, num_stages=stages, partial_sums=True)
    return config


@cache
def launcher(form: str) -> Callable[..., None]:
    """What launches an optional form: the forward's tensors and settings, outputs to fill, tiles and problem."""
    return import_module(f".forms.{form}", __package__).launch
