"""How many parameters each method adds to a transformer, and the bottleneck or rank that fits a budget."""

from __future__ import annotations

from collections.abc import Callable

Count = Callable[[int], int]


def houlsby_parameters(hidden: int, layers: int) -> Count:
    """Adapter-H (Houlsby et al. 2019): two adapters a layer, by m."""
    return lambda m: 2 * layers * (2 * hidden * m + hidden + m)


def lin_parameters(hidden: int, layers: int) -> Count:
    """Adapter-L (Lin et al. 2020): one adapter a layer behind the feed-forward, with a LayerNorm of its own, by m."""
    return lambda m: layers * (2 * hidden * m + hidden + m + 2 * hidden)


def lora_parameters(hidden: int, layers: int) -> Count:
    """LoRA on query and value, or on GPT-2's c_attn, which is [d, 3d]: the same number, by the rank."""
    return lambda rank: layers * 4 * hidden * rank


def nearest(count: Count, budget: int) -> int:
    """The bottleneck or rank, at least 1, whose parameters are nearest to the budget; `count` is a straight line."""
    constant = count(0)
    return max(1, round((budget - constant) / (count(1) - constant)))
