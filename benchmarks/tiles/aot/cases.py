"""Every launch that select_tiles can ask for, as arguments for an ahead-of-time compilation: no GPU, no data.

`make aot` compiles these for each named architecture and fails on a spill. They are written down from the launchers
themselves, called with tensors of the meta device, so that what is compiled is what runs: calls with all biases,
everything saved and every gradient needed. In aligned ones every tensor starts at a multiple of 16 bytes and UNIT says
that rows do; in ragged ones all but biases start anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from adapter_fast.kernels.offers import OPTIONAL_FORMS
from adapter_fast.kernels.shapes import TOKENS, Phase, Problem
from adapter_fast.kernels.tiles import converted, select_tiles

if TYPE_CHECKING:
    from adapter_fast.kernels.blocks import Linear

HIDDEN = (768, 1024, 4096)
BOTTLENECKS = (16, 32, 64, 128, 256, 512)
# (d, m, aligned): whole tiles, rows that start anywhere, tiles with masked columns, rows of m that are no 16 bytes.
SHAPES = (
    *((d, m, True) for m in BOTTLENECKS for d in HIDDEN),
    *((768, m, False) for m in BOTTLENECKS),
    *((1000, m * 3 // 4, True) for m in BOTTLENECKS[1:]),
    *((768, m - 3, True) for m in BOTTLENECKS),
)
# (x, weights, precision of float32 products)
DTYPES = (
    ("bf16", "bf16", "ieee"),
    ("bf16", "fp32", "ieee"),
    ("fp16", "fp16", "ieee"),
    ("fp16", "fp32", "ieee"),
    ("fp32", "fp32", "tf32"),
)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "i32": torch.int32}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# What a name says of the compile-time settings that are on.
_SETTINGS = {"PARTIAL_SUMS": "partial sums"}


@dataclass(frozen=True)
class AotCase:
    """One compilation: the kernel, its argument types, its compile-time values, and what to expect of the result."""

    name: str
    fn: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    divisible_by_16: tuple[str, ...]
    options: dict[str, Any]
    num_warps: int
    num_stages: int
    expects_tensor_core: bool
    kernel: str
    form: str
    x_dtype: str
    w_dtype: str
    precision: str
    BLOCK_T: int
    BLOCK_D: int
    BLOCK_M: int


def _tensor(dtype: str, *shape: int, aligned: bool = True) -> torch.Tensor:
    first = 0 if aligned else 1
    size = torch.Size(shape).numel()
    return torch.empty(first + size, dtype=_DTYPES[dtype], device="meta")[first:].view(shape)


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{_NAMES[value.dtype]}"
    return "i32" if isinstance(value, int) else "fp32"


def _units(size: str, fixed: dict[str, Any]) -> str:
    """What is known of d or m: whole tiles need no word."""
    unit = fixed.get(f"UNIT_{size}")
    if unit is None or unit == fixed.get(f"BLOCK_{size}", max(unit, 2)):
        return ""
    return f"{size.lower()} masked" if unit > 1 else f"{size.lower()} ragged"


def _cases(
    kernel: str, form: str, dtypes: tuple[str, str, str], aligned: bool, call: Callable[[], Any]
) -> Iterator[AotCase]:
    """A case for each launch of one call; kernel and form: what its own is called, beside the ones named below."""
    from adapter_fast.kernels.expand import expand_kernel
    from adapter_fast.kernels.forms.sliced import bottleneck_sliced_kernel
    from adapter_fast.kernels.launch import recorded

    x_dtype, w_dtype, precision = dtypes
    with recorded() as launches:
        call()
    for launch, arguments in launches:
        fn, options, fixed = launch.kernel, launch.options, launch.constants
        if fn is expand_kernel:
            kernel = "expand dx" if fixed["TRANSPOSED"] else "expand y"
        if fn is bottleneck_sliced_kernel:
            kernel = f"sliced {fixed['PHASE']}"
        blocks = {name: value for name, value in fixed.items() if name.startswith(("BLOCK_", "BIAS_"))}
        words = [kernel, form, f"{x_dtype}/{w_dtype}", precision, "aligned" if aligned else "ragged"]
        words += ["x".join(map(str, blocks.values())), f"w{options['num_warps']}"]
        words += [f"s{options['num_stages']}"] if "num_stages" in options else []
        words += [word for name, word in _SETTINGS.items() if fixed.get(name)]
        words += [_units(size, fixed) for size in "DM" if aligned]
        given = {name: value for name, value in arguments.items() if value is not None}
        read = {_NAMES[value.dtype] for name, value in given.items() if name.startswith("w_")}
        words += ["converted"] if read - {w_dtype} else []
        yield AotCase(
            name=" ".join(word for word in words if word),
            fn=fn,
            signature={name: _type(value) for name, value in given.items()},
            constexprs=dict.fromkeys(arguments.keys() - given.keys()) | fixed,
            divisible_by_16=tuple(
                name for name, value in given.items() if isinstance(value, torch.Tensor) and value.data_ptr() % 16 == 0
            ),
            options=options,
            num_warps=options["num_warps"],
            num_stages=options.get("num_stages", 0),
            expects_tensor_core=form != "" and (x_dtype != "fp32" or precision == "tf32"),
            kernel=kernel,
            form=form,
            x_dtype=x_dtype,
            w_dtype=w_dtype,
            precision=precision,
            BLOCK_T=blocks.get("BLOCK_T", 0),
            BLOCK_D=blocks.get("BLOCK_D", 0),
            BLOCK_M=blocks.get("BLOCK_M", 0),
        )


def _launches(dtypes: tuple[str, str, str], problem: Problem) -> Iterator[AotCase]:
    """The cases of one problem, one phase after another."""
    from adapter_fast.kernels.backward import Wanted, launch_dx, launch_weight_grad
    from adapter_fast.kernels.blocks import Linear, Saved
    from adapter_fast.kernels.forward import launch_forward
    from adapter_fast.kernels.launch import Branch, recorded
    from adapter_fast.kernels.reduce import Partial, launch_reduce

    x_dtype, w_dtype, precision = dtypes
    T, D, M, aligned = problem.tokens, problem.D, problem.M, problem.aligned
    x, dy = _tensor(x_dtype, T, D, aligned=aligned), _tensor(x_dtype, T, D, aligned=aligned)
    h = _tensor(x_dtype, T, M)

    def linears(setting: Problem) -> tuple[Linear, Linear]:
        """As ops/launch.py hands them on: copies, of weights in another dtype and of biases, are aligned."""
        dtype, at = (w_dtype, aligned) if setting == problem else (x_dtype, True)
        w_down, w_up = _tensor(dtype, M, D, aligned=at), _tensor(dtype, D, M, aligned=at)
        return Linear(w_down, _tensor(w_dtype, M)), Linear(w_up, _tensor(w_dtype, D))

    branch = Branch("gelu", 1.0)
    setting = converted("forward", problem)
    config = select_tiles("forward", setting)
    keep = Saved(h=True, slope=True, z=False)
    # Where its programs cannot wait for each other the sliced form is two launches, as for a device of -1.
    for device in (0, -1) if config.form == "sliced" else (0,):
        call = partial(launch_forward, x, *linears(setting), x, branch, keep, replace(setting, device=device))
        yield from _cases("forward", config.form, dtypes, aligned, call)

    setting = converted("backward", problem)
    down, up = linears(setting)
    none = Saved(None, None, None)
    modes: dict[Phase, Saved] = {"dx": none._replace(slope=h), "dx_z": none._replace(z=h), "dx_x": none}
    for phase, saved in modes.items():
        config = select_tiles(phase, setting)
        wanted = Wanted(dx=True, add_dy=True, h=phase != "dx", dz=True, db_down=True)
        call = partial(launch_dx, dy, x, saved, down, up.w, branch, wanted, setting)
        yield from _cases(phase, config.form, dtypes, aligned, call)
        # The weights themselves are not read in the next: their dtype does not matter.
        grads = partial(launch_weight_grad, dy, x, h, h, M, True, setting)
        yield from _cases("weight_grad", "fused", (x_dtype, x_dtype, precision), aligned, grads)
        with recorded():
            sums = Partial(db_down=call().db_down, **grads()._asdict())
        reduce = partial(launch_reduce, sums, 1.0, _DTYPES[w_dtype], setting)
        yield from _cases("reduce", "", (x_dtype, w_dtype, "ieee"), aligned, reduce)


def cases(arch: str) -> Iterator[AotCase]:
    """Each distinct launch on this architecture ("sm_80" … "gfx942"), once.

    Raises:
        ValueError: two that differ have one name.
    """
    seen: dict[str, AotCase] = {}
    for case in _all(arch):
        if seen.setdefault(case.name, case) is case:
            yield case
        elif seen[case.name] != case:
            raise ValueError(f"two compilations are called {case.name!r}: {seen[case.name]} and {case}")


def _all(arch: str) -> Iterator[AotCase]:
    for dtypes, (d, m, aligned), tokens in product(DTYPES, SHAPES, TOKENS):
        sizes = (_DTYPES[dtype].itemsize for dtype in dtypes[:2])
        problem = Problem(d, m, *sizes, dtypes[2], arch, aligned=aligned, tokens=tokens)
        for optional in ((), *((form,) for form in OPTIONAL_FORMS)):
            yield from _launches(dtypes, replace(problem, optional=optional))
