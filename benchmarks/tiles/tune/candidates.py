"""Which tiles are tried: every sensible one, less those that the traffic model predicts to be far from the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from adapter_fast.benchmarks.tiles.traffic import Machine, Traffic, estimated_programs, launch_traffic, predicted_us
from adapter_fast.kernels.offers import OPTIONAL_FORMS
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem, padded

MOST = 32  # candidates of a phase
ALIKE = 3  # of them with the same form, tile of tokens and hidden tile
WORSE = 1.35  # predicted times above the best prediction that are still tried: the model is a model
SLICED = 3  # however slow the model holds them to be


def candidates(
    phase: Phase,
    problems: Sequence[Problem],
    static: Sequence[LaunchConfig],
    most: int = MOST,
) -> list[LaunchConfig]:
    """The tiles to try for one shape and phase: the rules' own first, then the most promising.

    Args:
        problems: the shape, once for each number of tokens. static: the rules' choices for them.
        most: so many at most, besides those that an order of summation needs.
    """
    kept = list(dict.fromkeys(static))
    # One token count after the other, so that each has its best among the first.
    lists = [promising(phase, problem, all_tiles(phase, problem)) for problem in problems]
    longest = max((len(one) for one in lists), default=0)
    for place in range(longest):
        for one in lists:
            if place < len(one) and one[place] not in kept and len(kept) < most:
                kept.append(one[place])
    # A row's bits must not depend on T: what sums in an order of its own needs a plain kernel of that order beside it.
    for config in [one for one in kept if one.form == "sliced"]:
        beside = replace(config, form="fused", BLOCK_T=max(64, config.BLOCK_T), num_stages=3)
        if beside.order == config.order and beside not in kept:
            kept.append(beside)
    return kept


def promising(phase: Phase, problem: Problem, tiles: Iterator[LaunchConfig]) -> list[LaunchConfig]:
    """Those predicted to be near the best, the best first, no more than ALIKE alike; a few sliced ones."""
    timed = []
    for config in tiles:
        programs = estimated_programs(phase, config, problem)
        if programs:
            timed.append((_predicted(phase, config, problem, programs), config))
    plain = [us for us, config in timed if config.form not in OPTIONAL_FORMS]
    best = min(plain or [us for us, _ in timed], default=1.0)
    # Where the model sees no difference, four stages (on an H200 as good as three, and two a quarter slower), the wider
    # steps and as few warps as hold a tile come first.
    timed.sort(key=lambda one: (round(one[0] / best, 2), abs(one[1].num_stages - 4), -one[1].BLOCK_D, one[1].num_warps))
    kept: list[LaunchConfig] = []
    for us, config in timed:
        if config.form in OPTIONAL_FORMS:
            room = sum(one.form == config.form for one in kept) < SLICED
        else:
            room = us <= WORSE * best and sum(_kind(one) == _kind(config) for one in kept) < ALIKE
        if room:
            kept.append(config)
    return kept


def _kind(config: LaunchConfig) -> tuple[object, ...]:
    return config.form, config.BLOCK_T, config.BLOCK_D, config.BLOCK_M


def _predicted(phase: Phase, config: LaunchConfig, problem: Problem, programs: int) -> float:
    launches: list[Traffic] = [launch_traffic(phase, config, problem, problem.tokens, programs)]
    if config.form == "split" and phase not in ("expand", "weight_grad"):
        wide = LaunchConfig("split", 64, 128, 64, 4, 3)
        launches.append(launch_traffic("expand", wide, problem, problem.tokens, 2, backward=phase != "forward"))
    return sum(predicted_us(one, Machine(), problem.sms)[0] for one in launches)


def all_tiles(phase: Phase, problem: Problem) -> Iterator[LaunchConfig]:
    """Every combination worth a thought, for a shape at one number of tokens."""
    M = padded(problem.M)
    if phase == "weight_grad":
        for t, d, m, warps, stages in product((32, 64, 128), (64, 128), (16, 32, 64, 128, 256), (4, 8), (2, 3, 4)):
            if M // 4 <= m <= M:
                yield LaunchConfig("fused", t, d, m, warps, stages)
    elif phase == "expand":
        for t, d, m, warps, stages in product((64, 128), (64, 128, 256), (32, 64, 128), (4, 8), (2, 3, 4)):
            if m <= M:
                yield LaunchConfig("split", t, d, m, warps, stages)
    else:
        yield from _rows_in_rows_out(phase, problem, M)


def _rows_in_rows_out(phase: Phase, problem: Problem, M: int) -> Iterator[LaunchConfig]:
    if M <= 256:
        for t, d, stages in product((32, 64, 128), (32, 64, 128, 256), (2, 3, 4, 5)):
            # 16 rows a warp keep act(z) in registers between the products; 8 warps on 64 rows share a wide bottleneck.
            for warps in (4, 8) if t == 64 and M >= 128 else (max(4, t // 16),):
                yield LaunchConfig("fused", t, d, M, warps, stages)
    if M >= 128:
        for t, m, warps, stages in product((64, 128), (64, 128, 256), (4, 8), (2, 3, 4)):
            if m <= M:
                yield LaunchConfig("split", t, 64, m, warps, stages)
    if phase == "forward":
        yield from _optional(problem, M)


def _optional(problem: Problem, M: int) -> Iterator[LaunchConfig]:
    if M > 128:
        return
    for t, d, warps in product((16, 64), (32, 64, 128, 256), (4, 8)):
        # Programs that wait for each other must all run at once.
        if -(-problem.tokens // t) * -(-problem.D // d) <= problem.sms:
            yield LaunchConfig("sliced", t, d, M, warps, 1, partial_sums=True)
    # What more tokens take beside a sliced form: the same sums by the fused one.
    for (t, warps), d in product(((64, 4), (128, 8)), (64, 128)):
        yield LaunchConfig("fused", t, d, M, warps, 2 if d > 64 else 3, partial_sums=True)
