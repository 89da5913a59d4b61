"""Which tiles a launch uses: pure Python, no triton import, no timing, the same answer for the same arguments.

The order in which a row of y or dx is summed, and so its bits, does not depend on what else is in the batch: the number
of tokens may change how many rows a program takes, never LaunchConfig.order. Measured choices (tuned/) come first, then
the rules below over the static tables (tables.py). An optional form is taken only where it was measured to be the
fastest, or is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from . import offers, tuned
from .shapes import TOKENS, LaunchConfig, Phase, Problem, bucket, family, kind, padded
from .tables import DEPARTURES, TABLES

__all__ = ["TOKENS", "LaunchConfig", "Phase", "Problem", "bucket", "family", "kind", "padded", "select_tiles"]


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
def select_tiles(phase: Phase, problem: Problem) -> LaunchConfig:
    """The tiles of one launch.

    "forward" and "dx" (dx_z, dx_x: the same with the slope made from z or from x) are the fused kernel or the first of
    two launches, "expand" is the second of these; "weight_grad" both weights' gradients.
    """
    for name, config in problem.forced:
        if name == phase:
            return config
    # A form that is asked for sets the order of sums of the forward for all numbers of tokens.
    asked = phase == "forward" and problem.optional
    measured = None if asked else tuned.choice(phase, problem)
    return ruled(phase, problem) if measured is None else measured


def ruled(phase: Phase, problem: Problem) -> LaunchConfig:
    """The choice without measurements: rules over the static tables."""
    if phase == "weight_grad":  # it reads no weight
        problem = replace(problem, w_bytes=min(problem.w_bytes, problem.x_bytes))
    table = TABLES[kind(problem)] | DEPARTURES.get((family(problem.arch), kind(problem)), {})
    M = padded(problem.M)
    if phase == "expand":
        tiles = -(-problem.D // LaunchConfig("split", *table["expand"]).BLOCK_D)
        return _split(table, "expand", tiles, problem)
    if phase == "weight_grad":
        M = min(M, max(m for name, m in (key for key in table if isinstance(key, tuple)) if name == phase))
    down = f"down {phase}" if f"down {phase}" in table else "down"
    if phase in ("dx_z", "dx_x") and (phase, M) not in table:
        phase = "dx"
    config = _config(table, phase, M)
    if config is None:
        return _split(table, down, -(-M // LaunchConfig("split", *table[down]).BLOCK_M), problem)
    if phase == "weight_grad":
        return config
    config = _fitted(config, _config(table, f"{phase} narrow", M), problem)
    return offers.offered(config, problem) if phase == "forward" else config


def _config(table: dict[object, tuple[int, ...]], phase: str, M: int) -> LaunchConfig | None:
    row = table.get((phase, M), ())
    if not row:
        return None
    block_t, block_d, num_warps, num_stages = row
    return LaunchConfig("fused", block_t, block_d, M, num_warps, num_stages)


def _split(table: dict[object, tuple[int, ...]], name: str, tiles: int, problem: Problem) -> LaunchConfig:
    """One of the split form's two launches; tiles: how many its programs need side by side for each run of tokens."""
    wide, narrow = LaunchConfig("split", *table[name]), table.get(f"{name} narrow")
    few = -(-problem.tokens // wide.BLOCK_T) * tiles < problem.sms
    return LaunchConfig("split", *narrow) if few and narrow is not None else wide


def _fitted(wide: LaunchConfig, narrow: LaunchConfig | None, problem: Problem) -> LaunchConfig:
    """Narrow tiles where wide ones would leave a quarter of the GPU idle."""
    few = -(-problem.tokens // wide.BLOCK_T) < 0.75 * problem.sms
    return narrow if few and narrow is not None else wide


# Numbers of tokens from which float32 weights under 16-bit x are converted once a call: two small launches, where each
# tile of tokens would read both weights at 4 bytes and convert them. Before them the tiles do it, with the same bits.
CONVERT_FROM = {"forward": 65536, "backward": 16384}


@cache
def converted(direction: str, problem: Problem) -> Problem:
    """The problem of a "forward" or a "backward" whose weights are converted before it, or the same where they are not.

    They are not where rows would then be summed in another order than with few tokens.
    """
    if problem.w_bytes <= problem.x_bytes or problem.tokens < CONVERT_FROM[direction]:
        return problem
    other = replace(problem, w_bytes=problem.x_bytes)
    phases: tuple[Phase, ...] = ("forward",) if direction == "forward" else ("dx", "dx_z", "dx_x")
    if any(select_tiles(p, problem).form == "split" for p in phases):
        phases += ("expand",)
    same = all(select_tiles(p, problem).order == select_tiles(p, other).order for p in phases)
    return other if same else problem


def split_count(T: int, tiles: int, block_t: int, sms: int) -> int:
    """Into how many runs of tokens the weight gradients are split: two programs a multiprocessor, ≥ 1024 tokens a run.

    tiles: programs that one run needs to cover both weights.
    """
    wanted = max(1, 2 * sms // max(1, tiles))
    return max(1, min(wanted, T // max(1024, block_t)))
