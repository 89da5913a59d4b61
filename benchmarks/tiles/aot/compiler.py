"""Compiles one case for one architecture and reads it. Needs triton, but neither torch nor a GPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path

from adapter_fast.benchmarks.tiles.aot import resources
from adapter_fast.benchmarks.tiles.aot.gate import Reading
from adapter_fast.benchmarks.tiles.aot.targets import ARCHS, Arch

NOT_LABELS = {
    "name",
    "fn",
    "signature",
    "constexprs",
    "num_warps",
    "num_stages",
    "expects_tensor_core",
    "divisible_by_16",
    "options",
}


@lru_cache
def load_cases(module: str, arch: str) -> tuple:
    """The cases that `module` (a dotted name) gives for `arch`, in its own order."""
    return tuple(importlib.import_module(module).cases(arch))


def read_case(module: str, arch_name: str, index: int) -> Reading:
    """Compile case `index`; an exception of the compiler becomes the reading's `error`."""
    arch, case = ARCHS[arch_name], load_cases(module, arch_name)[index]
    reading = Reading(
        arch=arch_name,
        name=case.name,
        num_warps=case.num_warps,
        num_stages=case.num_stages,
        expects_tensor_core=case.expects_tensor_core,
        labels=_labels(case),
    )
    try:
        compiled = compile_case(case, arch)
        found = _read(compiled, arch)
    except Exception as error:  # the compilers raise what they like; whatever it is belongs in the table
        reading.error = f"{type(error).__name__}: {_first_line(error)}"
        return reading
    reading.registers, reading.spill_bytes, reading.local_ops = found.registers, found.spill_bytes, found.local_ops
    reading.tensor_ops = found.tensor_ops
    reading.shared = compiled.metadata.shared
    tensor_memory = getattr(compiled.metadata, "tmem_size", 0) or 0
    reading.blocks_per_sm = arch.blocks(found.registers, reading.shared, case.num_warps, tensor_memory)
    return reading


def compile_case(case, arch: Arch):
    """triton.compile with the options of the launch, and what it knows of arguments that are divisible by 16."""
    import triton

    source, target = described(case, arch)
    return triton.compile(source, target=target, options=dict(case.options))


def described(case, arch: Arch):
    """The case and the architecture as Triton's compiler takes them: ASTSource, GPUTarget."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.fn.arg_names
    signature = {name: "constexpr" if name in case.constexprs else case.signature[name] for name in names}
    attrs = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if name in case.divisible_by_16 and signature[name] != "constexpr"
    }
    source = ASTSource(fn=case.fn, signature=signature, constexprs=dict(case.constexprs), attrs=attrs)
    return source, GPUTarget(arch.backend, arch.number, arch.warp_size)


def _read(compiled, arch: Arch) -> resources.Resources:
    if arch.backend == "hip":
        return resources.from_amd(compiled.asm["amdgcn"])
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        found = resources.from_nvidia(usage, "", compiled.asm["ptx"])
        if found.spill_bytes:  # without a stack there is nothing that could be loaded from it or stored to it
            found = resources.from_nvidia(usage, _tool("nvdisasm", file.name), compiled.asm["ptx"])
    return found


def _tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, env=os.environ).stdout


def _labels(case) -> dict:
    names = [field.name for field in fields(case)] if is_dataclass(case) else vars(case)
    return {name: getattr(case, name) for name in names if name not in NOT_LABELS}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return (telling or lines[-1:] or [""])[0][:200]
