"""Optional forms of the forward: each is offered here, launched in forms/, and held right by a test of its own.

The rules take none by itself: it is measured to be the fastest (tuned/), or asked for. Pure Python, no triton import.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import NamedTuple

from .shapes import TOKENS, LaunchConfig, Problem, family

VARIABLE = "ADAPTER_FAST_KERNELS"  # where a user names them, separated by commas


class Offer(NamedTuple):
    """An optional form: its launch() is in forms/NAME.py."""

    tiles: Callable[[LaunchConfig, Problem], LaunchConfig | None]  # in place of the fused form's; None: cannot be had
    fits: Callable[[int, Problem], bool]  # whether so many programs can be launched


def _sliced(config: LaunchConfig, problem: Problem) -> LaunchConfig | None:
    """It adds up its slices one by one, so where few tokens take it more tokens must be summed like that too."""
    if problem.unit_m == 1 or problem.x_bytes != 2 or family(problem.arch) != "sm_90" or config.BLOCK_M > 128:
        return None
    if problem.D > 1024 and config.BLOCK_M > 64:  # slices of 128 columns and m = 128 leave too few registers
        return None
    block_d, stages = (64, config.num_stages) if problem.D <= 1024 else (128, 2)
    if problem.tokens == TOKENS[0]:
        return LaunchConfig("sliced", 64, block_d, config.BLOCK_M, 8, 1, partial_sums=True)
    return replace(config, BLOCK_D=block_d, num_stages=stages, partial_sums=True)


FORMS = {
    # Its programs wait for each other: all must run at once.
    "sliced": Offer(_sliced, lambda programs, problem: programs <= problem.sms),
}
OPTIONAL_FORMS = tuple(FORMS)


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
    """The forward's form that was asked for in place of the fused one, the first of several that can be had."""
    asked = (FORMS[name].tiles(config, problem) for name in problem.optional if config.form == "fused")
    return next((found for found in asked if found is not None), config)


def fits(config: LaunchConfig, problem: Problem) -> bool:
    """Whether a choice measured on one shape can be launched on this one, here."""
    programs = -(-problem.tokens // config.BLOCK_T) * -(-problem.D // config.BLOCK_D)
    return config.form not in FORMS or FORMS[config.form].fits(programs, problem)


@cache
def launcher(form: str) -> Callable[..., None]:
    """What launches an optional form: the forward's tensors and settings, outputs to fill, tiles and problem."""
    return import_module(f".forms.{form}", __package__).launch
