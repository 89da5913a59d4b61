"""Fills Triton's cache with every kernel that the GPU campaign launches, on all cores, with or without a GPU.

    python -m benchmarks.tiles.precompile                     what benchmarks/quarter.py, its tests and forms launch
    python -m benchmarks.tiles.precompile first               no more than its first part needs
    python -m benchmarks.tiles.precompile --pack FILE         and packs the cache, to be carried to another machine
    python -m benchmarks.tiles.precompile --unpack FILE       unpacks it there first, and compiles what is missing
    python -m benchmarks.tiles.precompile --all               every launch of benchmarks/tiles/aot/cases.py too

Prints how many were found and how many compiled. What is written hits where Triton's wheel (its version and Python's),
its ptxas, the kernels' source and Triton's own environment variables are the same, and under the same path: Triton
writes absolute paths into its cache, which therefore is quarter.CACHE wherever this runs. Each kernel is compiled by
Triton's own dispatch from the very arguments of a call, so that its key is that of the call. The C stubs of launches
are left to the machine with the GPU, which compiles each in a quarter of a second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import torch

from adapter_fast.benchmarks.quarter import CACHE
from adapter_fast.checks import ACTIVATIONS, MEMORY_MODES
from adapter_fast.common.errors import first_line
from adapter_fast.common.files import write_whole
from adapter_fast.testing import Case, call

if TYPE_CHECKING:
    from adapter_fast.kernels.launch import Launch
    from adapter_fast.kernels.shapes import LaunchConfig, Phase

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
RESIDUALS: tuple[Literal["x", "tensor", "none"], ...] = ("x", "tensor", "none")
PHASES: tuple[Phase, ...] = ("forward", "dx", "dx_z", "dx_x", "expand", "weight_grad")
# Of tests/kernels/test_gpu.py, whose shapes are not at hand here: (T, d) and m of the error budgets.
TESTED = ((1, 768), (127, 1000), (2048, 768), (1000, 4096)), (8, 16, 33, 64, 100, 256, 300, 512)
TESTED_32 = ((1, 768), (127, 1000), (2048, 768), (300, 4096)), (8, 64, 100, 256, 300)


@dataclass(frozen=True)
class Gpu:
    """What the choice of tiles depends on; an H100's where there is none."""

    arch: str = "sm_90"
    sms: int = 132


@dataclass(frozen=True)
class Call:
    """fused_adapter once without gradients and once with them.

    form: the optional one asked for, "" for none. choices: forced tiles by phase.
    """

    case: Case
    memory: str = "speed"
    form: str = ""
    precision: str = "highest"
    choices: Mapping[str, LaunchConfig] = field(default_factory=dict)


def campaign(gpu: Gpu, part: str = "second") -> Iterator[Call]:
    """What the steps of quarter.py call, within as_if_on(), the first steps' first; the second part is all of it."""
    from adapter_fast.benchmarks.cases.whole_models import latency_cases, model_cases
    from adapter_fast.benchmarks.smoke import HOST, SHAPES
    from adapter_fast.benchmarks.tiles.launches import KEY, case_of, sweep

    for (T, d, m), memory in product(SHAPES, MEMORY_MODES):
        yield Call(Case(T, d, m, BF16), memory)
    yield Call(replace(HOST, device="cpu"))
    key = [replace(case_of(words), device="cpu") for words in KEY]
    yield from map(Call, [*key, replace(key[0], weight_dtype=FP32)])
    for one in (*latency_cases("cuda"), *model_cases("cuda")):
        kind = None if one.suite == "latency" else FP32
        yield Call(Case(one.tokens, one.hidden, one.bottleneck, BF16, kind))
    yield from map(Call, tested())
    for (T, d), m in product(*TESTED_32):
        yield Call(Case(T, d, m, FP32), precision="high")  # at "highest" PyTorch computes
    for T, memory, kind in product((1, 77, 20001), MEMORY_MODES, (None, FP32)):
        yield Call(Case(T, 1024, 64, BF16, kind, residual="tensor"), memory, "sliced")
    yield Call(Case(64, 1024, 64, BF16), form="sliced")
    if part == "first":
        return
    for case in (case for case in key if (case.d, case.m) == (1024, 64)):
        yield from (Call(case, choices=choices) for choices in sweep(case))
    for (d, m, weight_bytes, chosen), memory in product(tile_choices(gpu), MEMORY_MODES):
        kind = FP32 if weight_bytes == 4 else None
        yield Call(Case(700, d, m, BF16, kind, scale=0.5), memory, choices=chosen)


def tested() -> Iterator[Case]:
    """The 16-bit cases of tests/kernels/test_gpu.py."""
    for (T, d), m, dtype, kind in product(*TESTED, (BF16, FP16), (None, FP32)):
        yield Case(T, d, m, dtype, kind)
    for activation, residual, bias in product(ACTIVATIONS, RESIDUALS, (True, False)):
        yield Case(333, 200, 24, BF16, activation=activation, residual=residual, bias=bias, scale=1.5)


def tile_choices(gpu: Gpu) -> list[tuple[int, int, int, dict[str, LaunchConfig]]]:
    """(d, m, bytes of a weight, tiles by phase) of each distinct set of tiles that 16-bit problems of this GPU get."""
    from adapter_fast.kernels.shapes import TOKENS, Problem
    from adapter_fast.kernels.tiles import select_tiles

    found: dict[Any, int] = {}
    grid = product((768, 1024, 4096), (16, 32, 64, 128, 256, 512), TOKENS, (2, 4), ((), ("sliced",)))
    for d, m, tokens, weight_bytes, optional in grid:
        on = {"arch": gpu.arch, "sms": gpu.sms, "device": 0}
        problem = Problem(d, m, 2, weight_bytes, "ieee", tokens=tokens, optional=optional, **on)
        chosen = tuple((phase, select_tiles(phase, problem)) for phase in PHASES)
        found.setdefault((m, weight_bytes, chosen), d)
    return [(d, m, weight_bytes, dict(chosen)) for (m, weight_bytes, chosen), d in found.items()]


class Driver:
    """What Triton asks of a GPU's driver before it compiles."""

    def __init__(self, gpu: Gpu) -> None:
        from triton.backends.compiler import GPUTarget

        number = int(gpu.arch.removeprefix("sm_"))
        self.target = GPUTarget("cuda", number, 32)
        self.utils = SimpleNamespace(get_device_properties=lambda device: {"max_shared_mem": 232448})

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def as_if_on(gpu: Gpu) -> Iterator[None]:
    """CPU tensors take the launchers' path as on this GPU while the block runs, and Triton compiles for it."""
    import triton

    from adapter_fast import checks, functional
    from adapter_fast.ops import problem as ops

    driver = triton.runtime.driver
    kept = functional.select_backend, ops.INTERPRETED, ops._problem, driver._active
    functional.select_backend = lambda device, dtype: checks.Backend("triton", "compiled ahead of time")
    ops.INTERPRETED = (gpu.arch, gpu.sms)
    ops._problem = lambda *args: replace(kept[2](*args), device=0)  # type: ignore[assignment]
    driver._active = Driver(gpu)
    try:
        yield
    finally:
        functional.select_backend, ops.INTERPRETED, ops._problem, driver._active = kept


def launches(calls: Sequence[Call]) -> list[tuple[Launch, dict[str, Any]]]:
    """What these calls launch, with the arguments, within as_if_on()."""
    from adapter_fast.kernels import offers, tiles
    from adapter_fast.kernels.launch import recorded

    found: list[tuple[Launch, dict[str, Any]]] = []
    asked, precision = offers.requested_forms, torch.get_float32_matmul_precision()
    try:
        for one in calls:
            offers.requested_forms = partial(tuple, [one.form] if one.form else [])
            torch.set_float32_matmul_precision(one.precision)
            with tiles.forced(**one.choices), recorded() as made:
                _call(one)
            found += made
    finally:
        offers.requested_forms = asked
        torch.set_float32_matmul_precision(precision)
    return found


def distinct(made: Sequence[tuple[Launch, dict[str, Any]]]) -> list[tuple[Launch, dict[str, Any]]]:
    """One launch of each of Triton's own keys, in the same order, within as_if_on()."""
    found: dict[Any, tuple[Launch, dict[str, Any]]] = {}
    for launch, arguments in made:
        *_, binder = launch.kernel.device_caches[0]
        _, specialization, options = binder(**arguments, **launch.constants, **launch.options)
        found.setdefault((launch.kernel, str(specialization), str(options)), (launch, arguments))
    return list(found.values())


def _call(one: Call) -> None:
    from adapter_fast import fused_adapter

    case, weights = one.case, one.case.weight_dtype or one.case.dtype
    T, d, m = case.T, case.d, case.m
    # Nothing is read: memory is asked for and never touched.
    inputs: dict[str, Any] = {name: torch.empty(T, d, dtype=case.dtype) for name in ("x", "residual")}
    inputs |= {"w_down": torch.empty(m, d, dtype=weights), "w_up": torch.empty(d, m, dtype=weights)}
    sizes = {"b_down": m, "b_up": d}
    inputs |= {name: torch.empty(n, dtype=weights) if case.bias else None for name, n in sizes.items()}
    for training in (False, True):
        leaves = [tensor.requires_grad_(training) for tensor in inputs.values() if tensor is not None]
        with nullcontext() if training else torch.no_grad():
            y = call(partial(fused_adapter, memory=one.memory), case, inputs)
        if training:
            torch.autograd.grad(y, leaves, torch.empty_like(y), allow_unused=True)


# What the processes of the pool have from their parent: tensors and kernels are handed over by being there at the fork.
_work: list[tuple[Launch, dict[str, Any]]] = []
_gpu = Gpu()


def _compile(index: int) -> tuple[str, str]:
    """Compile one launch: "found", "compiled" or "failed", and what it was or the error."""
    import triton

    launch, arguments = _work[index]
    hits: list[bool] = []
    triton.knobs.compilation.listener = lambda *, cache_hit, **_: hits.append(cache_hit)
    try:
        with as_if_on(_gpu):
            launch.kernel.run(grid=(1,), warmup=True, **arguments, **launch.constants, **launch.options)
    except Exception as error:  # a compiler raises what it likes; the others go on
        return "failed", f"{launch.kernel.__name__} {launch.options}: {type(error).__name__}: {first_line(error)}"
    return "found" if all(hits) else "compiled", launch.kernel.__name__


def fill(work: list[tuple[Launch, dict[str, Any]]], gpu: Gpu, jobs: int) -> dict[str, list[str]]:
    """Compile what the cache lacks; by outcome ("found", "compiled", "failed") what had it."""
    global _work, _gpu
    _work, _gpu = work, gpu
    outcomes: dict[str, list[str]] = {"found": [], "compiled": [], "failed": []}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        for outcome, what in pool.map(_compile, range(len(work))):
            outcomes[outcome].append(what)
    return outcomes


def gpu_here() -> Gpu | None:
    """The GPU at hand, None where there is none."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return Gpu(f"sm_{found.major}{found.minor}", found.multi_processor_count)


def pack(file: Path, cache: Path) -> None:
    """Write what Triton cached to a tar.xz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:xz") as packed:
        for path in sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".so"):
            packed.add(path, str(path.relative_to(cache)))


def unpack(file: Path, cache: Path) -> None:
    """The reverse."""
    cache.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file) as packed:
        packed.extractall(cache, filter="data")


def main(arguments: list[str] | None = None) -> int:
    """Compile, print what was found and what was not; the exit code, 1 where a kernel did not compile."""
    options = _parse(arguments)
    start = time.monotonic()
    # Interpreted functions cannot be compiled. Texts of the stages are nobody's need, and ten times the cubins.
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ |= {"TRITON_CACHE_DIR": str(options.cache), "TRITON_STORE_BINARY_ONLY": "1"}
    torch.set_num_threads(1)
    if options.unpack:
        if not options.unpack.is_file():
            print(f"--unpack must name what --pack wrote, got {options.unpack}, which is not there", file=sys.stderr)
            return 2
        unpack(options.unpack, options.cache)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=fork) as pool:  # a process that has met CUDA cannot be forked
        at_hand = pool.submit(gpu_here).result()
    gpu = replace(at_hand or Gpu(), **({"arch": options.arch} if options.arch else {}))
    with as_if_on(gpu):
        work = distinct(launches(list(campaign(gpu, options.part))) + (everything(gpu.arch) if options.all else []))
    recorded = time.monotonic() - start
    outcomes = fill(work, gpu, options.jobs)
    import triton

    counts = {outcome: len(what) for outcome, what in outcomes.items()}
    seconds = round(time.monotonic() - start, 1)
    print("\n".join([key_parts(), *outcomes["failed"]]))
    where = "the GPU here" if at_hand else "no GPU here"
    print(f"{gpu.arch}, {where}, Triton {triton.__version__}, {options.jobs} processes")
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    told += f", {spent.ru_utime + spent.ru_stime:.0f} s of the processors"
    print(f"{len(work)} launches: {told}, in {seconds} s, {recorded:.1f} s of them to list them")
    if "RESULT" in os.environ:
        write_whole(Path(os.environ["RESULT"]), json.dumps(counts | {"seconds": seconds, "arch": gpu.arch}) + "\n")
    if options.pack:
        pack(options.pack, options.cache)
        print(f"wrote {options.pack}, {options.pack.stat().st_size / 2**20:.1f} MiB: unpack it into {options.cache}")
    return int(counts["failed"] > 0)


def everything(arch: str) -> list[tuple[Launch, dict[str, Any]]]:
    """Every launch of aot/cases.py, whose own list is of what it takes to compile one apart from a call."""
    from adapter_fast.benchmarks.tiles.aot import cases as aot_cases
    from adapter_fast.kernels.launch import recorded

    found: list[tuple[Launch, dict[str, Any]]] = []

    def keep(
        kernel: str, form: str, dtypes: tuple[str, str, str], aligned: bool, call: Callable[[], Any]
    ) -> Iterator[Any]:
        with recorded() as made:
            call()
        found.extend(made)
        return iter(())

    before, aot_cases._cases = aot_cases._cases, keep
    try:
        list(aot_cases.cases(arch))
    finally:
        aot_cases._cases = before
    return found


def key_parts() -> str:
    """What the cache's keys have of this machine, in words."""
    from triton._C.libtriton import get_cache_invalidating_env_vars
    from triton.backends.nvidia.compiler import get_ptxas_version
    from triton.runtime.cache import triton_key

    digest = hashlib.sha256(triton_key().encode()).hexdigest()[:12]
    ptxas = get_ptxas_version(90).split("release ")[-1].split(",")[0]
    variables = [f"{name}={value}" for name, value in sorted(get_cache_invalidating_env_vars().items())]
    return f"Triton's key {digest}, ptxas {ptxas}, {' '.join(variables) or 'none of its variables set'}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.precompile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="?", choices=("first", "second"), default="second", help="[default: second, all]")
    parser.add_argument("--arch", help="such as sm_90  [default: the GPU's at hand, else sm_90]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument(
        "--cache", type=Path, default=CACHE / "triton", metavar="DIR", help=f"[default: {CACHE}/triton]"
    )
    parser.add_argument("--all", action="store_true", help="every launch of benchmarks/tiles/aot/cases.py too")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write the cache to a tar.xz")
    parser.add_argument("--unpack", type=Path, metavar="FILE", help="fill the cache from one first")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
