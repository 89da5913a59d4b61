"""Which of the timed candidates is written: pure functions of times, tested with a made-up clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from adapter_fast.kernels.offers import OPTIONAL_FORMS
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.measure.clock import Spread

MARGIN = 0.02  # a choice must win by so much beyond the spread to replace the rules' own
OPTIONAL_MARGIN = 0.05  # and a form that is optional by so much
Times = Mapping[LaunchConfig, Spread]


def wins(challenger: Spread, holder: Spread, margin: float) -> bool:
    """Whether even the slow samples of one are faster than the fast samples of the other, by the margin."""
    return challenger.p80 <= (1 - margin) * holder.p20


def shortlist(
    static: Mapping[int, LaunchConfig],
    coarse: Mapping[int, Mapping[LaunchConfig, float]],
    free_order: bool,
    orders: int = 2,
    each: int = 2,
) -> dict[int, list[LaunchConfig]]:
    """For the fine round, by number of tokens: the rules' own, and the best few of the best orders of summation.

    Args:
        coarse: times over the rules' own in the same group, so that groups compare. free_order: whether each number of
            tokens may sum in an order of its own (the weight gradients, which are sums over tokens).
    """
    ranking: dict[object, float] = {}
    for order in _orders((config for times in coarse.values() for config in times), free_order):
        best = [min(_of(times, order, free_order).values(), default=math.inf) for times in coarse.values()]
        ranking[order] = geometric_mean(best)
    ranked = [order for order, mean in sorted(ranking.items(), key=lambda one: one[1]) if mean < math.inf]
    kept = set(ranked[:orders])
    fine: dict[int, list[LaunchConfig]] = {}
    for tokens, times in coarse.items():
        own = _key(static[tokens], free_order)
        names = [static[tokens]]
        for order in kept | {own}:
            ours = sorted(_of(times, order, free_order).items(), key=lambda one: one[1])
            plain = [config for config, _ in ours if config.form not in OPTIONAL_FORMS][:each]
            optional = [config for config, _ in ours if config.form in OPTIONAL_FORMS][:each]
            names += [*plain, *optional]
        fine[tokens] = list(dict.fromkeys(names))
    return fine


def choose(static: Mapping[int, LaunchConfig], fine: Mapping[int, Times], free_order: bool) -> dict[int, LaunchConfig]:
    """The tiles for every number of tokens, all of one order of summation unless free_order.

    Of the orders that have an answer for every number of tokens, the one with the least geometric mean of medians over
    the rules' own; another order than the rules' must win by the margin as a whole. Within an order a challenger must
    win at its number of tokens.

    Args:
        static: the rules' choices, which are among the timed. fine: times by number of tokens.
    """
    best, least = dict(static), math.inf
    for order in _orders((config for times in fine.values() for config in times), free_order):
        picks: dict[int, LaunchConfig] = {}
        for tokens, times in fine.items():
            pick = _pick(_of(times, order, free_order), static[tokens], times[static[tokens]])
            if pick is not None:
                picks[tokens] = pick
        if len(picks) < len(fine):
            continue
        mean = geometric_mean([fine[n][one].p50 / fine[n][static[n]].p50 for n, one in picks.items()])
        beyond = geometric_mean([fine[n][one].p80 / fine[n][static[n]].p20 for n, one in picks.items()])
        ours = all(_key(static[n], free_order) == order for n in picks)
        if mean < least and (ours or beyond <= 1 - MARGIN):
            best, least = picks, mean
    return best


def _pick(times: Times, static: LaunchConfig, holder: Spread) -> LaunchConfig | None:
    """The choice among tiles of one order at one number of tokens; None where they have nothing to offer."""
    fastest = sorted(times, key=lambda config: times[config].p50)
    plain = [config for config in fastest if config.form not in OPTIONAL_FORMS]
    optional = [config for config in fastest if config.form in OPTIONAL_FORMS]
    current = static if static in times else next(iter(plain), None)
    if current is static and plain and wins(times[plain[0]], times[static], MARGIN):
        current = plain[0]
    if optional and wins(times[optional[0]], holder if current is None else times[current], OPTIONAL_MARGIN):
        current = optional[0]
    return current


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one positive number; infinite where one is."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def _key(config: LaunchConfig, free_order: bool) -> object:
    return None if free_order else config.order


def _orders(configs: Iterable[LaunchConfig], free_order: bool) -> list[object]:
    return list(dict.fromkeys(_key(config, free_order) for config in configs))


def _of(times: Mapping[LaunchConfig, object], order: object, free_order: bool) -> dict:
    return {config: value for config, value in times.items() if _key(config, free_order) == order}
