"""Which tiles a launch uses: pure Python, no triton import, no timing, the same answer for the same arguments.

Nothing here depends on the number of tokens T in a way that changes the order of a row's sums: a row of y or dx is the
same bit for bit whatever else is in the batch. The tables were chosen by ahead-of-time compilation (`make aot`): no
spill, shared memory within the architecture's limit, tensor-core instructions for every 16-bit product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "dx", "expand", "weight_grad"]


@dataclass(frozen=True)
class LaunchConfig:
    """One launch: form "fused" (one kernel per direction) or "split" (a launch for each projection), and its tiles."""

    form: Literal["fused", "split"]
    BLOCK_T: int
    BLOCK_D: int
    BLOCK_M: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Problem:
    """What the choice of tiles depends on.

    D, M: hidden and bottleneck size; x_bytes, w_bytes: bytes of one element of x and of the weights;
    precision: "ieee" or "tf32", of float32 products; arch: "sm_90", "gfx942", …; sms: its multiprocessors.
    """

    D: int
    M: int
    x_bytes: int
    w_bytes: int
    precision: str
    arch: str
    sms: int = 132


def padded(size: int) -> int:
    """size rounded up to a power of two, at least 16: what a matrix product of tiles needs."""
    return max(16, 1 << (size - 1).bit_length())


def select_tiles(phase: Phase, problem: Problem) -> LaunchConfig:
    """The tiles of one phase of one problem."""
    M = padded(problem.M)
    if phase == "weight_grad":
        return LaunchConfig("fused", 64, 64, min(M, 128), 4, 3)
    if phase == "expand":
        return LaunchConfig("split", 64, 128, 64, 4, 3)
    if M > 256:
        return LaunchConfig("split", 64, 64, 128, 4, 3)
    if M == 256:
        return LaunchConfig("fused", 64, 64, M, 8, 3)
    if M >= 64:
        return LaunchConfig("fused", 128, 64, M, 8, 3)
    return LaunchConfig("fused", 64, 64, M, 4, 3)


def split_count(T: int, tiles: int, block_t: int, sms: int) -> int:
    """Into how many runs of tokens the weight gradients are split: two programs a multiprocessor, ≥ 1024 tokens a run.

    tiles: programs that one run needs to cover both weights.
    """
    wanted = max(1, 2 * sms // max(1, tiles))
    return max(1, min(wanted, T // max(1024, block_t)))
