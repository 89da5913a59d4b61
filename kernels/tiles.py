"""Which tiles a launch uses: pure Python, no triton import, no timing, the same answer for the same arguments.

The order in which a row of y or dx is summed, and so its bits, does not depend on what else is in the batch: the number
of tokens may change how many rows a program takes, never LaunchConfig.order. Measured choices (tuned/) come first, then
the rules below over the static tables (tables.py). A form that no GPU has run is taken only where it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from . import tuned
from .shapes import TOKENS, LaunchConfig, Phase, Problem, bucket, family, kind, padded
from .tables import DEPARTURES, TABLES

__all__ = ["TOKENS", "LaunchConfig", "Phase", "Problem", "bucket", "family", "kind", "padded", "select_tiles"]


# Forms that no GPU has run yet: a user names them in this variable, separated by commas.
OPTIONAL_FORMS = ("resident", "sliced", "queue")
VARIABLE = "ADAPTER_FAST_KERNELS"


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


_forced: tuple[tuple[str, LaunchConfig], ...] = ()


def forced_choices() -> tuple[tuple[str, LaunchConfig], ...]:
    """What forced() holds at the moment, for Problem.forced."""
    return _forced


@contextmanager
def forced(**choices: LaunchConfig) -> Iterator[None]:
    """Launch these phases with these tiles while the block runs: for tests and for the tuner, in one thread."""
    global _forced
    before, _forced = _forced, tuple(sorted(choices.items()))
    try:
        yield
    finally:
        _forced = before


@cache
def select_tiles(phase: Phase, problem: Problem) -> LaunchConfig | None:
    """The tiles of one launch, or None where the phase "queue" is not to be used.

    "forward" and "dx" (dx_z, dx_x: the same with the slope made from z or from x) are the fused kernel or the first of
    two launches, "expand" is the second of these; "weight_grad" both weights' gradients; "queue" the whole backward.
    """
    for name, config in problem.forced:
        if name == phase:
            return config
    measured = tuned.choice(phase, problem)
    return _ruled(phase, problem) if measured is None else measured


def _ruled(phase: Phase, problem: Problem) -> LaunchConfig | None:
    table = TABLES[kind(problem)] | DEPARTURES.get((family(problem.arch), kind(problem)), {})
    M = padded(problem.M)
    if phase == "expand":
        return LaunchConfig("split", *table["expand"])
    if phase == "queue":
        return _queue(table, M, problem)
    if phase == "weight_grad":
        M = min(M, max(m for name, m in (key for key in table if isinstance(key, tuple)) if name == phase))
    if phase in ("dx_z", "dx_x") and (phase, M) not in table:
        down, phase = table.get(f"down {phase}", table["down"]), "dx"
    else:
        down = table.get(f"down {phase}", table["down"])
    config = _config(table, phase, M)
    if config is None:
        return LaunchConfig("split", *down)
    if phase == "weight_grad":
        return config
    config = _fitted(config, _config(table, f"{phase} narrow", M), problem)
    return _optional(config, problem) if phase == "forward" else config


def _config(table: dict[object, tuple[int, ...]], phase: str, M: int) -> LaunchConfig | None:
    row = table.get((phase, M), ())
    return LaunchConfig("fused", row[0], row[1], M, row[2], row[3]) if row else None


def _fitted(wide: LaunchConfig, narrow: LaunchConfig | None, problem: Problem) -> LaunchConfig:
    """Rows a program, and how many programs a multiprocessor, for this number of tokens and this cache.

    Each program reads its rows twice, and the second reading must still find them in the cache: the programs that run
    at the same time may hold 70 % of it. Two narrow programs a multiprocessor overlap their phases; where not even
    these fit, the rows come from memory twice whatever is done, and wide tiles save traffic for the weights.
    """

    def resident(config: LaunchConfig) -> int:
        return int(0.7 * problem.l2_bytes // (problem.sms * config.BLOCK_T * problem.D * problem.x_bytes))

    few = -(-problem.tokens // wide.BLOCK_T) <= problem.sms
    if few:
        return narrow or wide
    best = narrow if narrow is not None and resident(narrow) >= 2 else wide
    cap = resident(best)
    return replace(best, programs_per_sm=cap if cap < 4 else 0, evict_first=cap > 0)


def _optional(config: LaunchConfig, problem: Problem) -> LaunchConfig:
    return config


def _queue(table: dict[object, tuple[int, ...]], M: int, problem: Problem) -> LaunchConfig | None:
    return None


def split_count(T: int, tiles: int, block_t: int, sms: int) -> int:
    """Into how many runs of tokens the weight gradients are split: two programs a multiprocessor, ≥ 1024 tokens a run.

    tiles: programs that one run needs to cover both weights.
    """
    wanted = max(1, 2 * sms // max(1, tiles))
    return max(1, min(wanted, T // max(1024, block_t)))


def programs(config: LaunchConfig, tiles: int, sms: int) -> int:
    """How many programs a launch over so many tiles takes."""
    return tiles if config.programs_per_sm == 0 else min(tiles, config.programs_per_sm * sms)
