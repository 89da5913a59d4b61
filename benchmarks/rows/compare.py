"""Rows side by side: which belong together, and how one stands to another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from adapter_fast.benchmarks.rows import Row


@dataclass(frozen=True)
class Provider:
    """Someone who is measured: how tables and plots show it, and what it is compared with."""

    label: str
    colour: str  # of Okabe and Ito's palette, which the colour-blind can tell apart; greys for what is no peer
    role: Literal["ours", "peer", "bare", "other"] = "peer"  # fused is to beat peers alone
    bare: str = "bare"  # the bare model that it is above of: of the same compiler, the same transformers
    adapters: bool = True  # whether what it adds to the bare model are adapters, which have a floor


# In the order of tables and plots.
PROVIDERS = {
    "fused": Provider("fused", "#D55E00", "ours"),
    "fused-balanced": Provider("fused, balanced", "#B04A00", "ours"),
    "fused-lean": Provider("fused, lean", "#7A3300", "ours"),
    "fused-compile": Provider("fused + torch.compile", "#E69F00", "ours", bare="bare-compile"),
    "reference": Provider("reference", "#6E6E6E", "other"),
    "two-kernel": Provider("two kernels", "#56B4E9"),
    "compile": Provider("torch.compile", "#0072B2", bare="bare-compile"),
    "adapterhub": Provider("AdapterHub", "#009E73", bare="adapterhub-bare"),
    "adapter-l": Provider("Adapter-L", "#882255"),  # Tol's wine red
    "peft-lora": Provider("PEFT LoRA", "#CC79A7", adapters=False),
    "peft-lora-merged": Provider("PEFT LoRA, merged", "#F0E442", "other", adapters=False),
    "full": Provider("full fine-tuning", "#000000", "other", adapters=False),
    "bare": Provider("bare model", "#B4B4B4", "bare", adapters=False),
    "bare-compile": Provider("bare model + torch.compile", "#8A8A8A", "bare", adapters=False),
    "adapterhub-bare": Provider("bare model, transformers 4.57", "#C8C8C8", "bare", adapters=False),
}
BARE_MEANS = "the bare model: for compiled models the compiled one, for AdapterHub that of its own transformers"
MODES = {"eager": "eager", "graph-cold": "CUDA graph, inputs in no cache", "graph-hot": "CUDA graph"}
OUR_PROVIDERS = tuple(name for name, provider in PROVIDERS.items() if provider.role == "ours")

Group = dict[str, Row]
_VARIANT = re.compile(r"-w(\d+)$")
_MODEL_CASE = re.compile(r"(?P<model>.+?)-b(?P<batch>\d+)-s(?P<seq_len>\d+)(?:-|$)")


class ModelSize(NamedTuple):
    """What a case of a whole model says in its name."""

    model: str
    batch: int
    seq_len: int


def model_size(case: str) -> ModelSize | None:
    """'bert-base-b32-s128-m64-bfloat16' → bert-base, 32, 128; None for a case of the op."""
    found = _MODEL_CASE.match(case)
    return ModelSize(found["model"], int(found["batch"]), int(found["seq_len"])) if found else None


def variant(case: str) -> str:
    """How a case of the op differs from another of its sizes: 'float32 weights' of a name ending in -w32, or ''."""
    found = _VARIANT.search(case)
    return f"float{found[1]} weights" if found else ""


def groups(rows: Iterable[Row]) -> dict[tuple[str, str, str], Group]:
    """(case, phase, mode) → provider → row, in the rows' order.

    A provider that could not run at all says so in one mode; it then stands in every mode of its case and phase.
    """
    rows = list(rows)
    found: dict[tuple[str, str, str], Group] = {}
    for row in rows:
        found.setdefault((row.case, row.phase, row.mode), {})[row.provider] = row
    ran = {(row.case, row.phase, row.provider) for row in rows if row.ran}
    for row in (row for row in rows if (row.case, row.phase, row.provider) not in ran):
        for (case, phase, _), group in found.items():
            if (case, phase) == (row.case, row.phase):
                group.setdefault(row.provider, row)
    return {place: {name: group[name] for name in providers(group)} for place, group in found.items()}


def providers(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of PROVIDERS; unknown ones last, as they come."""
    once = dict.fromkeys(names)
    return [*(name for name in PROVIDERS if name in once), *(name for name in once if name not in PROVIDERS)]


def provider_of(name: str) -> Provider:
    """A provider by its name; one that is here no longer, or not yet, as a peer in a colour of its own."""
    return PROVIDERS.get(name) or Provider(name, "#666633")


def best_mode(rows: Iterable[Row]) -> str:
    """The mode that is free of Python and of warm caches where it was measured, else eager."""
    return "graph-cold" if any(row.mode == "graph-cold" and row.us_p50 for row in rows) else "eager"


def speedup(other: Row | None, row: Row | None) -> float | None:
    """Median of `other` over that of `row`: above 1, `row` is faster."""
    return other.us_p50 / row.us_p50 if other and row and other.us_p50 and row.us_p50 else None


def over_bare(row: Row | None, group: Group) -> float | None:
    """How much longer than its bare model's median, a fraction of it; None for a bare model itself.

    Compiled models stand against the compiled bare one, AdapterHub's against that of its own transformers, where these
    were measured.
    """
    if row is None or provider_of(row.provider).role == "bare":
        return None
    own = group.get(provider_of(row.provider).bare)
    bare = speedup(row, own if own and own.us_p50 else group.get("bare"))
    return None if bare is None else bare - 1.0


def fastest(group: Group, names: Iterable[str]) -> Row | None:
    """The row of the shortest median among these providers."""
    ran = [group[name] for name in names if name in group and group[name].us_p50]
    return min(ran, key=lambda row: row.us_p50 or 0.0, default=None)


def memory_share(row: Row | None, other: Row | None) -> float | None:
    """Peak bytes of `row` over those of `other`."""
    return row.peak_bytes / other.peak_bytes if row and other and row.peak_bytes and other.peak_bytes else None


def floor_share(row: Row) -> float | None:
    """The physical floor over the median, a fraction."""
    return row.floor_us / row.us_p50 if row.floor_us and row.us_p50 else None


def tokens_per_second(row: Row) -> float | None:
    """Tokens of a case over its median."""
    return row.tokens / row.us_p50 * 1e6 if row.us_p50 else None


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one positive value."""
    return math.exp(sum(map(math.log, values)) / len(values))


def adapter_parameters(rows: Iterable[Row]) -> int | None:
    """Of the Houlsby adapters of a case."""
    return next((row.parameters for row in rows if row.provider in ("fused", "reference") and row.parameters), None)


def dtypes(rows: Iterable[Row]) -> list[str]:
    """Each once, as they come."""
    return list(dict.fromkeys(row.dtype for row in rows))
