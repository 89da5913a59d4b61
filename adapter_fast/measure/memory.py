"""Bytes: what a call takes at most above what was there before it, and what is free."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .recorded import recorded


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Highest sum of live allocations during `call`, its outputs included. First calls make workspaces: warm it."""
    return _cuda_peak(call) if device == "cuda" else _cpu_peak(call)


def _cuda_peak(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


def _cpu_peak(call: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        kept = call()
        del kept
    events = recorded(profiler)["traceEvents"]  # with each allocation and free on its own
    memory = sorted((e["ts"], i, e["args"]["Bytes"]) for i, e in enumerate(events) if e["name"] == "[memory]")
    return max(accumulate((size for _, _, size in memory), initial=0))


def free_bytes(device: str) -> int:
    """Bytes that a new allocation can get now: of the GPU, or what Linux calls available."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text("utf-8"), re.M)
    return int(found[1]) << 10 if found else 0
