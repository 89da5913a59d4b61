"""The least time the memory system allows: the bytes that must move, at a copy's speed in the same run."""

from __future__ import annotations

import torch

from benchmarks.cases import DTYPES, OpCase


def minimal_bytes(case: OpCase, phase: str) -> int:
    """Bytes read and written when every launch reads each input once and writes each output once.

    X = T·d, Z = T·m, W = d·m elements. Forward 2X + 2W; forward+backward also saves Z and then moves
    3X + Z + 2W read + 2W written (../shared/kernels.md, 2.1), biases and their gradients besides.
    """
    X, Z, W = case.tokens * case.hidden, case.tokens * case.bottleneck, case.hidden * case.bottleneck
    biases = case.hidden + case.bottleneck
    elements = {
        "forward": 2 * X + 2 * W + biases,
        "forward+backward": 5 * X + 2 * Z + 6 * W + 2 * biases,
    }[phase]
    return elements * DTYPES[case.dtype].itemsize


def floor_us(case: OpCase, phase: str, copy_gbps: float) -> float:
    """minimal_bytes at the copy's bandwidth, in microseconds."""
    return minimal_bytes(case, phase) / copy_gbps / 1e3


def copy_gbps(device: str, timer, rounds: int = 10) -> float:
    """GB/s of a device-to-device copy, bytes read and written both counted; far larger than any cache."""
    size = 1 << (30 if device == "cuda" else 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = sorted(timer(lambda: target.copy_(source)) for _ in range(rounds))
    return 2 * size / times[len(times) // 2] / 1e3
