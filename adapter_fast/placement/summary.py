"""adapter_summary: where adapters sit, what trains, and which backend computes each site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..adapter import FusedAdapter
from .container import AdapterSite, site_of
from .sites import Site, find_sites
from .state import require_state, unwrap
from .walk import TUNED


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
    adapter = site.adapters[site.active] if site.active is not None else None
    bottleneck = getattr(adapter, "bottleneck", None)
    if adapter is None:
        backend, reason = "none", "no adapter is active here"
    elif not site.enabled:
        backend, reason = "none", "adapters are disabled"
    elif isinstance(adapter, FusedAdapter):
        weight = place.weight
        dtype = weight.dtype if weight.dtype.is_floating_point else adapter.down.weight.dtype
        x = torch.empty(0, d, device=adapter.down.weight.device, dtype=dtype)
        backend, reason = adapter.explain(x)
    else:
        backend, reason = "reference", "the configuration asks for the plain PyTorch implementation"
    return SiteSummary(place.name, place.kind, d, bottleneck, backend, reason)


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
    parameters = list(base.named_parameters())
    for _, site in pairs:
        for name, adapter in site.adapters.items():
            counts[name] += sum(parameter.numel() for parameter in adapter.parameters())
    return AdapterSummary(
        adapters=counts,
        active=state.active,
        enabled=all(site.enabled for _, site in pairs),
        sites=tuple(_summarize_site(place, site) for place, site in pairs),
        trained=sum(value.numel() for _, value in parameters if value.requires_grad),
        total=sum(value.numel() for name, value in parameters if TUNED not in name.split(".")),
    )
