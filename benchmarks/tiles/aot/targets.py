"""The architectures we ship for, and how many blocks (CTAs) of a kernel fit on one of their multiprocessors."""

from __future__ import annotations

from dataclasses import dataclass

KB = 1024
TENSOR_MEMORY_COLUMNS = 512  # of a multiprocessor of sm_100


@dataclass(frozen=True)
class Arch:
    """Limits of one GPU architecture, from the vendor's tables; sizes in bytes."""

    name: str
    backend: str
    number: int | str
    warp_size: int
    shared_per_block: int
    shared_per_sm: int
    threads_per_sm: int
    blocks_per_sm: int
    registers_per_sm: int = 65536
    shared_reserved: int = KB  # what the driver takes of every block

    def blocks(self, registers: int, shared: int, num_warps: int, tensor_memory: int = 0) -> int:
        """Blocks that one multiprocessor (AMD: compute unit) holds at once; `tensor_memory` in columns."""
        if self.backend == "hip":
            # 4 SIMDs, each with 512 vector registers a lane and room for 8 waves; a block's waves spread over them.
            waves = min(8, 512 // _round_up(max(registers, 1), 8)) * 4
            by_registers, by_threads = waves // num_warps, self.blocks_per_sm
        else:
            threads = num_warps * self.warp_size
            by_registers = self.registers_per_sm // (_round_up(max(registers, 1), 8) * threads)
            by_threads = self.threads_per_sm // threads
        by_shared = self.shared_per_sm // max(shared + self.shared_reserved, 1)
        by_tensor_memory = TENSOR_MEMORY_COLUMNS // tensor_memory if tensor_memory else self.blocks_per_sm
        return max(0, min(by_registers, by_threads, by_shared, by_tensor_memory, self.blocks_per_sm))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", "cuda", 80, 32, 163 * KB, 164 * KB, 2048, 32),
        Arch("sm_90", "cuda", 90, 32, 227 * KB, 228 * KB, 2048, 32),
        Arch("sm_100", "cuda", 100, 32, 227 * KB, 228 * KB, 2048, 32),
        Arch("sm_120", "cuda", 120, 32, 99 * KB, 100 * KB, 1536, 24),
        Arch("gfx942", "hip", "gfx942", 64, 64 * KB, 64 * KB, 2048, 16, shared_reserved=0),
    )
}
