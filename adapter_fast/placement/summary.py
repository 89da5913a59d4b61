"""adapter_summary: where adapters sit, what trains, and which backend computes each site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter import FusedAdapter
from ..children import describe
from .container import AdapterSite, site_of
from .sites import Site, find_sites
from .state import require_state, unwrap
from .walk import count_parameters


@dataclass(frozen=True)
class SiteSummary:
    """One site: its hooked module, sub-layer, width d, the active adapter's bottleneck m, and what computes it."""

    name: str
    kind: str
    hidden_size: int
    bottleneck: int | None
    backend: str
    reason: str


@dataclass(frozen=True)
class AdapterSummary:
    """What adapter_summary returns; str() of it is a table."""

    adapters: dict[str, int]  # parameters of each adapter, all sites together
    active: str | None
    enabled: bool
    sites: tuple[SiteSummary, ...]
    trained: int
    total: int

    @property
    def share(self) -> float:
        """Parameters trained over parameters in all, the adapters' included."""
        return self.trained / self.total if self.total else 0.0

    def __str__(self) -> str:
        marks = {self.active: " (active)" if self.enabled else " (active, disabled)"}
        lines = [f"adapter {name}{marks.get(name, '')}: {count:,} parameters" for name, count in self.adapters.items()]
        width = max(len(site.name) for site in self.sites)
        for site in self.sites:
            shape = f"d {site.hidden_size}" + ("" if site.bottleneck is None else f", m {site.bottleneck}")
            lines.append(f"  {site.name:<{width}}  {site.kind:<15}  {shape}  {site.backend}")
        for backend, reason in dict.fromkeys((site.backend, site.reason) for site in self.sites):
            lines.append(f"backend {backend}: {reason}")
        lines.append(f"trained {self.trained:,} of {self.total:,} parameters ({100 * self.share:.2f} %)")
        return "\n".join(lines)


def _summarize_site(place: Site, site: AdapterSite) -> SiteSummary:
    d = place.width
    adapter: Any = site.adapters[site.active] if site.active is not None else None
    bottleneck = getattr(adapter, "bottleneck", None)
    if adapter is None:
        backend, reason = "none", "no adapter is active here"
    elif not site.enabled:
        backend, reason = "none", "adapters are disabled"
    else:
        x = _like_its_input(place, adapter)
        if isinstance(adapter, FusedAdapter):
            backend, reason = adapter.explain(x)
        else:
            backend, reason = "reference", "the configuration asks for the plain PyTorch implementation"
            called = describe(adapter.down, adapter.up, x)
            reason = f"{reason}; {called}" if called else reason
    return SiteSummary(place.name, place.kind, d, bottleneck, backend, reason)


def _like_its_input(place: Site, adapter: Any) -> Tensor:
    """No tokens [0, d] of the dtype that enters an adapter, on its device."""
    # A quantised projection has no weights among its parameters.
    own = next((value for value in adapter.parameters() if value.dtype.is_floating_point), place.weight)
    dtype = place.weight.dtype if place.weight.dtype.is_floating_point else own.dtype
    return torch.empty(0, place.width, device=own.device, dtype=dtype)


def adapter_summary(model: nn.Module) -> AdapterSummary:
    """Sites with the backend of each and why, parameters trained and in all, and their share.

    Raises:
        ValueError: the model has no adapters.
    """
    base = unwrap(model)
    state = require_state(base)
    places = {place.name: place for config in state.configs.values() for place in find_sites(base, config)}
    pairs = [(place, site) for place in places.values() if (site := site_of(place.module)) is not None]
    counts = dict.fromkeys(state.configs, 0)
    for _, site in pairs:
        for name, adapter in site.adapters.items():
            counts[name] += sum(parameter.numel() for parameter in adapter.parameters())
    return AdapterSummary(
        adapters=counts,
        active=state.active,
        enabled=all(site.enabled for _, site in pairs),
        sites=tuple(_summarize_site(place, site) for place, site in pairs),
        trained=sum(value.numel() for value in base.parameters() if value.requires_grad),
        total=count_parameters(base),
    )
