"""Where a forward's time goes, layer by layer: ranges around sub-layers and adapters in traced, eager forwards.

A range costs a few microseconds on the host, so these times are never mixed with latencies. On a GPU a range's time is
that of the kernels launched inside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from torch import nn
from torch.profiler import record_function

from ..placement.container import site_of
from ..placement.sites import family_of, find_layers, find_sites, is_norm
from .chrome_trace import FORWARD, ON_DEVICE, Trace, record, slices

KINDS = ("attention", "feed_forward")
PARTS = ("attention", "attention_adapter", "feed_forward", "feed_forward_adapter", "other")


@dataclass(frozen=True)
class Layer:
    """One layer's modules: the sub-layer of each kind, in one or two modules, and the adapter inside it."""

    name: str
    module: nn.Module
    sub_layers: dict[str, list[nn.Module]]
    adapters: dict[str, nn.Module]  # the active ones


@dataclass(frozen=True)
class LayerTime:
    """Microseconds of a layer's PARTS, each the median over the traced forwards; `other` is what no part covers."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Breakdown:
    """Medians over the traced forwards in microseconds, of host time (CPU) or of kernels (CUDA), and one trace."""

    forward: float
    layers: list[LayerTime]
    forwards: int
    trace: Trace  # of the forward in the middle

    @property
    def outside(self) -> float:
        """What no layer covers: embeddings, pooler, head."""
        return self.forward - sum(layer.total for layer in self.layers)


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers in the model's order; ValueError for a model of an unknown family."""
    stacks = dict(find_layers(model, family_of(model)))
    found: dict[str, Layer] = {}
    for site in find_sites(model):
        layer = found.setdefault(site.layer, Layer(site.layer, model.get_submodule(site.layer), {}, {}))
        sub = getattr(stacks[site.layer], site.kind)
        # Some sub-layers are several modules, such as BERT's intermediate and output; the last one holds the adapter.
        parts = dict.fromkeys(_part(layer.module, name) for name in (sub.entry, sub.dense, sub.hook))
        layer.sub_layers[site.kind] = [part for part in parts if not is_norm(part)]
        holder = site_of(site.module)
        if holder is not None and holder.active is not None:
            layer.adapters[site.kind] = holder.adapters[holder.active]
    return list(found.values())


def _part(layer: nn.Module, name: str) -> nn.Module:
    """The module of the layer that a name lies in; in T5 that is one of a list."""
    top, _, rest = name.partition(".")
    module = layer.get_submodule(top)
    return module.get_submodule(rest.partition(".")[0]) if isinstance(module, nn.ModuleList) else module


def break_down(
    model: nn.Module,
    call: Callable[[], object],
    device: str,
    forwards: int = 10,
    tick: Callable[[], object] = lambda: None,
) -> Breakdown:
    """Trace `forwards` calls of the eager model, after one that is thrown away; the model is left as it was.

    call: runs the model's forward. tick: called after each traced call, for a progress bar.
    """
    layers = layers_of(model)
    traces = []
    with _ranges([named for layer in layers for named in _named(layer)]):
        for _ in range(forwards + 1):
            traces.append(record(call, device))
            tick()
    times = [_range_times(trace, device) for trace in traces[1:]]
    order = sorted(range(forwards), key=lambda index: times[index][FORWARD])
    return Breakdown(
        forward=median(one[FORWARD] for one in times),
        layers=[LayerTime(layer.name, _medians([_parts(layer, one) for one in times])) for layer in layers],
        forwards=forwards,
        trace=traces[1:][order[forwards // 2]],
    )


def _named(layer: Layer) -> Iterator[tuple[str, nn.Module]]:
    """The name of the range around each module of a layer."""
    yield layer.name, layer.module
    for kind, modules in layer.sub_layers.items():
        yield from ((f"{layer.name} {kind}", module) for module in modules)
    for kind, adapter in layer.adapters.items():
        yield f"{layer.name} {kind}_adapter", adapter


@contextmanager
def _ranges(named: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """Inside this context each module's forward is a profiler range of that name; hooks, so none is left after it."""
    opened: list[record_function] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            opened.append(record_function(name))
            opened[-1].__enter__()

        return hook

    def leave(*_: object) -> None:
        opened.pop().__exit__(None, None, None)

    handles = []
    try:
        for name, module in named:
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _range_times(trace: Trace, device: str) -> Counter[str]:
    """Microseconds of each range by name: of the range itself, or of the kernels that were launched inside it."""
    ranges = [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in slices(trace, "user_annotation")]
    times: Counter[str] = Counter()
    if device != "cuda":
        for name, start, end in ranges:
            times[name] += end - start
        return times
    # By their launch: a Triton launch is no operation of PyTorch's, so the profiler ties its kernel to no range.
    launches = {e["args"]["correlation"]: e["ts"] for e in slices(trace, "cuda_runtime", "cuda_driver") if _tied(e)}
    for event in slices(trace, *ON_DEVICE):
        launched = launches.get(event["args"]["correlation"]) if _tied(event) else None
        for name in {name for name, start, end in ranges if launched is not None and start <= launched <= end}:
            times[name] += event["dur"]
    return times


def _tied(event: dict) -> bool:
    return "correlation" in event.get("args", {})


def _parts(layer: Layer, times: Counter[str]) -> dict[str, float]:
    parts: dict[str, float] = {}
    for kind in KINDS:
        adapter = times[f"{layer.name} {kind}_adapter"]
        parts |= {kind: times[f"{layer.name} {kind}"] - adapter, f"{kind}_adapter": adapter}
    return parts | {"other": times[layer.name] - sum(parts.values())}


def _medians(forwards: list[dict[str, float]]) -> dict[str, float]:
    return {part: median(one[part] for one in forwards) for part in PARTS}
