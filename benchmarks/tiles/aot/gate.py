"""What a reading must hold: no spill, shared memory within the limit, tensor cores for 16-bit dots, wgmma on Hopper."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapter_fast.benchmarks.tiles.aot.targets import Arch

WGMMA_ROWS = 64


@dataclass
class Reading:
    """One case compiled for one architecture; `error` holds the compiler's first line where it did not compile."""

    arch: str
    name: str
    num_warps: int
    num_stages: int
    expects_tensor_core: bool
    labels: dict = field(default_factory=dict)
    registers: int = 0
    spill_bytes: int = 0
    local_ops: int = 0
    shared: int = 0
    blocks_per_sm: int = 0
    tensor_ops: dict[str, int] = field(default_factory=dict)
    error: str = ""


def faults(reading: Reading, arch: Arch) -> list[str]:
    """Why this reading fails, in words; empty where it passes."""
    if reading.error:
        return [reading.error]
    found = []
    if reading.spill_bytes or reading.local_ops:
        found.append(f"spills {reading.spill_bytes} bytes a thread ({reading.local_ops} loads and stores)")
    if reading.shared > arch.shared_per_block:
        found.append(f"wants {reading.shared} bytes of shared memory, a block has {arch.shared_per_block}")
    if reading.expects_tensor_core and not reading.tensor_ops:
        found.append("no tensor-core instruction in a kernel with a 16-bit dot")
    elif arch.name == "sm_90" and _fit_for_wgmma(reading):
        others = [name for name in reading.tensor_ops if not name.startswith("wgmma.")]
        if others:
            found.append(f"{', '.join(others)} in a 16-bit kernel with BLOCK_T ≥ 64, where every dot should be wgmma")
    return found


def _fit_for_wgmma(reading: Reading) -> bool:
    """Whether Hopper's products by four warps, which alone reach its full rate, can serve every dot of the kernel."""
    sixteen_bit = reading.expects_tensor_core and reading.labels.get("x_dtype") in ("bf16", "fp16")
    return sixteen_bit and reading.labels.get("BLOCK_T", 0) >= WGMMA_ROWS
