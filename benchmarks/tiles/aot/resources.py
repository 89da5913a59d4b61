"""Reads registers, spills and tensor-core instructions out of the compilers' own texts. Strings in, numbers out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_CUOBJDUMP = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_TENSOR_PTX = re.compile(r"\b((?:wgmma\.mma_async|tcgen05\.mma|mma\.sync)[\w.:]*)")
_TENSOR_AMD = re.compile(r"\b(v_s?mfmac?_\w+)")


@dataclass
class Resources:
    """What one compiled kernel takes. `spill_bytes` is per thread; `local_ops` counts loads and stores of spills."""

    registers: int
    spill_bytes: int
    local_ops: int = 0
    tensor_ops: dict[str, int] = field(default_factory=dict)


def from_nvidia(res_usage: str, sass: str, ptx: str) -> Resources:
    """From `cuobjdump -res-usage`, `nvdisasm` (empty where it cannot decode) and the PTX."""
    match = _CUOBJDUMP.search(res_usage)
    if match is None:
        raise ValueError(f"no REG/STACK line in what cuobjdump printed: {res_usage.strip()[:200]!r}")
    registers, stack, _, local = map(int, match.groups())
    local_ops = len(re.findall(r"\b(?:LDL|STL)\b", sass))
    return Resources(registers, stack + local, local_ops, _count(_TENSOR_PTX, ptx))


def from_amd(amdgcn: str) -> Resources:
    """From the assembly's metadata. `.vgpr_count` counts the accumulation registers too."""
    spilled = _metadata(amdgcn, "vgpr_spill_count") + _metadata(amdgcn, "sgpr_spill_count")
    # A scalar register spills into vector lanes and takes no memory: then the count is all that tells.
    return Resources(
        registers=_metadata(amdgcn, "vgpr_count"),
        spill_bytes=max(_metadata(amdgcn, "private_segment_fixed_size"), 4 * spilled),
        local_ops=len(re.findall(r"\bscratch_(?:load|store)_", amdgcn)),
        tensor_ops=_count(_TENSOR_AMD, amdgcn),
    )


def _metadata(amdgcn: str, key: str) -> int:
    match = re.search(rf"\.{key}:\s+(\d+)", amdgcn)
    if match is None:
        raise ValueError(f"no .{key} in the assembly's metadata")
    return int(match[1])


def _count(pattern: re.Pattern, text: str) -> dict[str, int]:
    return dict(sorted(Counter(pattern.findall(text)).items()))
