"""Section 3.6: a trained model scored with the adapters of each contiguous span of layers removed, not retrained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from ...placement.container import AdapterSite, sites_in
from ...placement.sites import find_sites


def score_spans(model: nn.Module, score: Callable[[], float]) -> dict[str, float]:
    """The score without the adapters of layers first to last, both removed, by "first-last"; "none" is the whole model.

    Args:
        model: with one adapter, active, in every layer. score: what the model scores as it is now.
    """
    layers = _by_layer(model)
    scores = {"none": score()}
    for first in range(len(layers)):
        for last in range(first, len(layers)):
            with _without([site for layer in layers[first : last + 1] for site in layer]):
                scores[f"{first}-{last}"] = score()
    return scores


def _by_layer(model: nn.Module) -> list[list[AdapterSite]]:
    sites = sites_in(model)
    layers: dict[str, list[AdapterSite]] = {}
    for site in find_sites(model):
        if site.name in sites:
            layers.setdefault(site.layer, []).append(sites[site.name])
    return list(layers.values())


@contextmanager
def _without(sites: list[AdapterSite]) -> Iterator[None]:
    active = [site.active for site in sites]
    for site in sites:
        site.switch(None)
    try:
        yield
    finally:
        for site, name in zip(sites, active):
            site.switch(name)
