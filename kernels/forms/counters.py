"""Counters that programs of one launch share, zero before and after each launch: where they live, and how they count.

A launch borrows its counters and its last program leaves them at zero, so that nothing has to be cleared in between,
and a captured launch can be replayed. Launches that may run at the same time must not share: each stream has counters
of its own, and each captured launch too, since a graph may be replayed on any stream.
"""

import threading
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl

ARENA = 65536  # int32 per device, allocated once
LINE = 32  # int32 in a cache line of 128 bytes: launches that run at the same time do not share one
PER_STREAM = 256  # what a stream gets at its first launch


@dataclass
class _Arena:
    """One device's counters: how many were handed out, and which each stream has."""

    buffer: torch.Tensor
    used: int = 0
    by_stream: dict[int, torch.Tensor] = field(default_factory=dict)

    def take(self, n: int) -> torch.Tensor | None:
        """n counters that nobody has, or None."""
        first = self.used
        if first + n > self.buffer.numel():
            return None
        self.used = first + -(-n // LINE) * LINE
        return self.buffer[first : first + n]


_arenas: dict[torch.device, _Arena] = {}
_lock = threading.Lock()


def counters(device: torch.device, n: int) -> torch.Tensor | None:
    """n int32 [n] on the device, all zero unless a launch on the current stream is under way; None if there are none.

    The same for every call on one stream; under capture of a CUDA graph new ones, which are never handed out again.
    None under capture where no call came before it (its memory would belong to the graph), and when all are given away.
    The device must be the current one.
    """
    on_gpu = device.type == "cuda"
    capturing = on_gpu and torch.cuda.is_current_stream_capturing()
    stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
    with _lock:
        arena = _arenas.get(device)
        if arena is None:
            if capturing:
                return None
            arena = _Arena(torch.zeros(ARENA, dtype=torch.int32, device=device))
            if on_gpu:  # other streams, and graphs, will not wait for this one's memset
                torch.cuda.current_stream(device).synchronize()
            _arenas[device] = arena
        if capturing:
            return arena.take(n)
        mine = arena.by_stream.get(stream)
        if mine is None or mine.numel() < n:
            mine = arena.take(max(n, PER_STREAM))
            if mine is None:
                return None
            arena.by_stream[stream] = mine
        return mine[:n]


@triton.jit
def arrive(counter_ptr):
    """Count one more; what this program wrote before is there for whoever waits for the count."""
    tl.debug_barrier()
    tl.atomic_add(counter_ptr, 1, sem="release")


@triton.jit
def wait_for(counter_ptr, count):
    """Return once the counter has reached count; what the programs that counted wrote before is then there."""
    while tl.atomic_add(counter_ptr, 0, sem="acquire") < count:
        pass
    tl.debug_barrier()
