"""A profile's figures in one object, and as JSON."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ..measure import machine
from ..measure.roofline import Ceilings, Shape, floor_us, minimal_bytes
from ..placement import adapter_summary
from .breakdown import Breakdown, layers_of
from .latency import Overhead, Side
from .request import Request
from .subject import Subject


@dataclass(frozen=True)
class AdapterFloor:
    """One adapter against the physical floor: microseconds in the traced run, bytes it must move, the floor's µs."""

    layer: str
    kind: str
    hidden: int
    bottleneck: int
    us: float
    bytes: int
    floor_us: float

    @property
    def share(self) -> float:
        """How much of the floor's speed it reaches; over 1 where a cache held what memory was counted for."""
        return self.floor_us / self.us


@dataclass(frozen=True)
class Profile:
    """All that one run found. about: the model, the machine and the versions, for headers."""

    request: Request
    about: dict[str, Any]
    sides: dict[str, Side]
    overhead: Overhead
    breakdown: Breakdown
    adapters: list[AdapterFloor]
    ceilings: Ceilings

    @property
    def mode(self) -> str:
        """How the latencies were taken."""
        name = "torch.compile" if self.request.compiled else "eager"
        return f"CUDA graph of {name}" if self.request.cuda_graph else name

    @property
    def clock(self) -> str:
        """What the breakdown's times are of."""
        return "kernel time on the GPU" if self.request.device == "cuda" else "host time"


def floors(request: Request, model: nn.Module, breakdown: Breakdown, ceilings: Ceilings) -> list[AdapterFloor]:
    """Every active adapter of the model, in the model's order."""
    x_bytes = getattr(torch, request.dtype).itemsize
    found = []
    for layer, times in zip(layers_of(model), breakdown.layers):
        adapters: dict[str, Any] = layer.adapters
        for kind, adapter in adapters.items():
            shape = Shape(
                T=request.tokens,
                d=adapter.hidden_size,
                m=adapter.bottleneck,
                x_bytes=x_bytes,
                w_bytes=adapter.down.weight.element_size(),
            )
            floor = floor_us(shape, "forward", ceilings)
            us, size = times.parts[f"{kind}_adapter"], minimal_bytes(shape, "forward")
            found.append(AdapterFloor(layer.name, kind, shape.d, shape.m, us, size, floor))
    return found


def describe_run(request: Request, subject: Subject) -> dict[str, Any]:
    """The model, its adapters and their backend, the machine, the versions: what stands above the figures."""
    summary = adapter_summary(subject.model)
    clock_mhz, celsius = machine.clocks(request.device)
    return {
        "model": type(subject.bare).__name__,
        "layers": len(layers_of(subject.model)),
        "hidden": summary.sites[0].hidden_size,
        "parameters": sum(parameter.numel() for parameter in subject.bare.parameters()),
        "adapters": len(summary.sites),
        "bottleneck": summary.sites[0].bottleneck,
        "adapter_parameters": sum(summary.adapters.values()),
        "backends": [
            {"backend": backend, "reason": reason}
            for backend, reason in dict.fromkeys((site.backend, site.reason) for site in summary.sites)
        ],
        "tokens": request.tokens,
        "device": machine.device_name(request.device),
        "clock_mhz": clock_mhz,
        "celsius": celsius,
        "versions": machine.versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def as_json(profile: Profile) -> dict[str, Any]:
    """Every figure, times in microseconds, sizes in bytes, JSON types only."""
    request, breakdown, over = profile.request, profile.breakdown, asdict(profile.overhead)
    about = profile.about
    return {
        "request": {**asdict(request), "adapter": None if request.adapter is None else str(request.adapter)},
        **about,
        "form": profile.mode,
        "sides": {
            name: {**asdict(side.latency), "jitter": side.latency.jitter, **asdict(side)}
            for name, side in profile.sides.items()
        },
        "overhead": {
            **over,
            "us_per_adapter": over["us_p50"] / about["adapters"],
            "us_per_layer": over["us_p50"] / about["layers"],
        },
        "ceilings": asdict(profile.ceilings),
        "breakdown": {
            "of": f"{profile.clock} of the eager model while traced, median of {breakdown.forwards} forwards",
            "forward": breakdown.forward,
            "outside": breakdown.outside,
            "layers": [{"name": layer.name, "total": layer.total, **layer.parts} for layer in breakdown.layers],
        },
        "adapters_against_floor": [{**asdict(adapter), "share": adapter.share} for adapter in profile.adapters],
    }
