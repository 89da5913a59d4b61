"""The physical floor of an adapter: the bytes it must move and the products it must do, at the machine's own rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from .clock import Timer

Phase = Literal["forward", "backward", "forward+backward"]
PHASES: tuple[Phase, ...] = ("forward", "backward", "forward+backward")


@dataclass(frozen=True)
class Shape:
    """One adapter call: T tokens, hidden size d, bottleneck m, and the bytes of an element of x and of a weight."""

    T: int
    d: int
    m: int
    x_bytes: int
    w_bytes: int


@dataclass(frozen=True)
class Ceilings:
    """What this machine reached in this run: GB/s of a copy (read and written counted), TFLOP/s of a matrix product."""

    copy_gbps: float
    tflops: float


def minimal_bytes(shape: Shape, phase: Phase) -> int:
    """Bytes when each phase reads each input once and writes each output once.

    With X = T·d and Z = T·m elements of x, W = d·m of a weight:

        forward             read X + 2W, write X
        backward            read X (x) + X (dy) + Z (saved) + 2W, write X (dx) + 2W
        forward+backward    both, and Z written where the forward saves it

    Biases and their gradients besides.
    """
    X, Z = shape.T * shape.d * shape.x_bytes, shape.T * shape.m * shape.x_bytes
    W, biases = shape.d * shape.m * shape.w_bytes, (shape.d + shape.m) * shape.w_bytes
    forward = 2 * X + 2 * W + biases
    backward = 3 * X + Z + 4 * W + biases
    return {"forward": forward, "backward": backward, "forward+backward": forward + Z + backward}[phase]


def flops(shape: Shape, phase: Phase) -> int:
    """Operations of the matrix products, a multiplication and an addition each: two products forward, four backward."""
    products = {"forward": 2, "backward": 4, "forward+backward": 6}[phase]
    return products * 2 * shape.T * shape.d * shape.m


def floor_us(shape: Shape, phase: Phase, ceilings: Ceilings) -> float:
    """The longer of moving the bytes and doing the products, in microseconds."""
    return max(minimal_bytes(shape, phase) / ceilings.copy_gbps / 1e3, flops(shape, phase) / ceilings.tflops / 1e6)


def measure_ceilings(device: str, dtype: torch.dtype, timer: Timer, rounds: int = 10) -> Ceilings:
    """Copy bandwidth and matrix rate of `device` ("cpu" or "cuda"), the median of `rounds`, on random data."""
    return Ceilings(copy_gbps(device, timer, rounds), matrix_tflops(device, dtype, timer, rounds))


def copy_gbps(device: str, timer: Timer, rounds: int = 10) -> float:
    """GB/s of a device-to-device copy, bytes read and written both counted; far larger than any cache."""
    elements = 1 << (28 if device == "cuda" else 26)
    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median(lambda: target.copy_(source), timer, rounds) / 1e3


def matrix_tflops(device: str, dtype: torch.dtype, timer: Timer, rounds: int = 10) -> float:
    """TFLOP/s of a square product of random matrices through the vendor's library."""
    n = 8192 if device == "cuda" and dtype.itemsize <= 2 else 4096 if device == "cuda" else 1536
    left, right = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * n**3 / _median(lambda: torch.mm(left, right, out=out), timer, rounds) / 1e6


def _median(call, timer: Timer, rounds: int) -> float:
    for _ in range(2):
        call()
    return sorted(timer(call) for _ in range(rounds))[rounds // 2]
