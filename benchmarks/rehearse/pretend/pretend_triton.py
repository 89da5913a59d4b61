"""Triton on the rehearsal's libcuda: kernels become binaries for sm_90, or with REHEARSE=skip only Triton's own code.

Either way the frontend reads every kernel, and the real launcher takes its arguments. A line a kernel goes to the file
of REHEARSE_LOG: kernel, key, whether it was compiled or found in the cache, seconds, CPU seconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

OF_LAUNCHER = 9  # what a launcher takes before the kernel's own arguments
SKIPPED = "rehearsed, not compiled"


def change(triton: Any) -> None:
    """Triton's driver and compiler, for the processes of a rehearsal."""
    # Loaded now, under the name that launchers look for: no LD_LIBRARY_PATH is needed.
    ctypes.CDLL(str(Path(os.environ["TRITON_LIBCUDA_PATH"]) / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    from triton.backends.nvidia.compiler import CUDABackend
    from triton.compiler import compiler

    compiled: list[str] = []
    add_stages, compile_, key_of = CUDABackend.add_stages, compiler.compile, compiler.get_cache_key
    skip = os.environ["REHEARSE"] == "skip"

    def stages(self: Any, stages: dict[str, Any], *args: Any) -> None:
        compiled.append("")  # asked for where the cache has nothing
        add_stages(self, stages, *args)
        for name in list(stages)[1 if "ttir" in stages else 0 :] if skip else ():
            stages[name] = _no_stage(name)

    def compile(src: Any, target: Any = None, options: Any = None, **more: Any) -> Any:
        before, start = _cpu(), time.perf_counter()
        compiled.clear()
        made = compile_(src, target=target, options=options, **more)
        row = {"kernel": src.name, "key": made.hash, "compiled": bool(compiled)}
        row |= {"seconds": round(time.perf_counter() - start, 3), "cpu": round(_cpu() - before, 3), "pid": os.getpid()}
        _log(row | {"test": os.environ.get("PYTEST_CURRENT_TEST", "")})
        return made

    load = compiler.CompiledKernel._init_handles

    def init_handles(self: Any) -> None:
        fresh = self._run is None
        load(self)
        if fresh:
            self._run = _counting_arguments(self._run, self.name, len(self.src.fn.arg_names))

    CUDABackend.add_stages = stages
    compiler.CompiledKernel._init_handles = init_handles
    compiler.compile = triton.compiler.compile = compile
    triton.compile = compile
    if skip:
        compiler.get_cache_key = lambda *args, **more: f"{key_of(*args, **more)}-{SKIPPED}"


def _counting_arguments(launcher: Any, name: str, expected: int) -> Any:
    """Triton 3.9's launcher reads past the end of too few arguments."""

    def launch(*given: Any) -> None:
        if len(given) - OF_LAUNCHER != expected:
            raise TypeError(f"{name} takes {expected} arguments, got {len(given) - OF_LAUNCHER}")
        launcher(*given)

    return launch


def _no_stage(name: str) -> Any:
    def stage(source: Any, metadata: dict[str, Any]) -> Any:
        if hasattr(source, "get_entry_func_name"):
            metadata["name"] = source.get_entry_func_name()
        for key in ("shared", "global_scratch_size", "profile_scratch_size"):
            metadata.setdefault(key, 0)
        for key in ("global_scratch_align", "profile_scratch_align"):
            metadata.setdefault(key, 1)
        metadata.setdefault("tmem_size", None)
        return SKIPPED.encode() if name == "cubin" else source

    return stage


def _cpu() -> float:
    return sum(os.times()[:4])


def _log(row: dict[str, Any]) -> None:
    path = os.environ.get("REHEARSE_LOG")
    if path:
        with open(path, "a") as log:
            log.write(json.dumps(row) + "\n")
