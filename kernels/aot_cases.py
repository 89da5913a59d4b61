"""Every launch that select_tiles can ask for, as arguments for an ahead-of-time compilation: no GPU, no tensors.

`make aot` compiles these for each named architecture and fails on a spill. A case holds what the compiler would see of
a call with all biases, everything saved and every gradient needed; in aligned ones the pointers, D and M are known to
be divisible by 16, in ragged ones nothing is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import triton.language as tl

from .backward import bottleneck_dx_kernel, weight_grad_kernel
from .expand import expand_kernel
from .forward import bottleneck_forward_kernel
from .tiles import LaunchConfig, Phase, Problem, select_tiles

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
PHASES: tuple[Phase, ...] = ("forward", "dx", "expand", "weight_grad")
BOTTLENECKS = (16, 32, 64, 128, 256, 512)
# (x, weights, precision of float32 products)
DTYPES = (
    ("bf16", "bf16", "ieee"),
    ("bf16", "fp32", "ieee"),
    ("fp16", "fp16", "ieee"),
    ("fp16", "fp32", "ieee"),
    ("fp32", "fp32", "tf32"),
    ("fp32", "fp32", "ieee"),
)
_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class AotCase:
    """One compilation: the kernel, its argument types, its compile-time values, and what to expect of the result."""

    name: str
    fn: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    divisible_by_16: tuple[str, ...]
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


def _case(
    kernel: str,
    fn: Any,
    dtypes: tuple[str, str, str],
    config: LaunchConfig,
    pointers: dict[str, str | None],
    scalars: dict[str, Any],
    constexprs: dict[str, Any],
    aligned: bool,
) -> AotCase:
    x_dtype, w_dtype, precision = dtypes
    types = {name: f"*{dtype}" for name, dtype in pointers.items() if dtype is not None}
    types |= {name: kind for name, kind in scalars.items() if isinstance(kind, str)}
    fixed: dict[str, Any] = {name: None for name, dtype in pointers.items() if dtype is None}
    fixed |= {name: value for name, value in scalars.items() if not isinstance(value, str)}
    fixed |= constexprs | {"PRECISION": precision, "ACC_DTYPE": tl.float32}
    fixed |= {"BLOCK_T": config.BLOCK_T, "BLOCK_D": config.BLOCK_D, "BLOCK_M": config.BLOCK_M}
    rows = "aligned" if aligned else "ragged"
    tiles = f"{config.BLOCK_T}x{config.BLOCK_D}x{config.BLOCK_M} w{config.num_warps} s{config.num_stages}"
    return AotCase(
        name=f"{kernel} {config.form} {x_dtype}/{w_dtype} {precision} {rows} {tiles}",
        fn=fn,
        signature=types,
        constexprs=fixed,
        divisible_by_16=tuple(name for name in types if aligned and name not in ("T", "tokens_per_split", "scale")),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        expects_tensor_core=x_dtype != "fp32" or precision == "tf32",
        kernel=kernel,
        form=config.form,
        x_dtype=x_dtype,
        w_dtype=w_dtype,
        precision=precision,
        BLOCK_T=config.BLOCK_T,
        BLOCK_D=config.BLOCK_D,
        BLOCK_M=config.BLOCK_M,
    )


def _forward(dtypes: tuple[str, str, str], config: LaunchConfig, aligned: bool) -> AotCase:
    x, w, _ = dtypes
    split = config.form == "split"
    pointers = {"x_ptr": x, "w_down_ptr": w, "b_down_ptr": w, "w_up_ptr": w, "b_up_ptr": w, "residual_ptr": x}
    pointers |= {"y_ptr": None if split else x, "h_ptr": x, "slope_ptr": x}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "scale": "fp32", "stride_xt": "i32", "stride_rt": "i32"}
    return _case(
        "forward", bottleneck_forward_kernel, dtypes, config, pointers, scalars, {"ACTIVATION": "gelu"}, aligned
    )


def _dx(dtypes: tuple[str, str, str], config: LaunchConfig, aligned: bool) -> AotCase:
    x, w, _ = dtypes
    split = config.form == "split"
    pointers = {"dy_ptr": x, "slope_ptr": x, "w_up_ptr": w, "w_down_ptr": None if split else w}
    pointers |= {"dx_ptr": None if split else x, "dz_ptr": x, "db_down_ptr": "fp32"}
    pointers |= {"db_up_ptr": None if split else "fp32"}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "scale": "fp32", "stride_dyt": "i32"}
    return _case("dx", bottleneck_dx_kernel, dtypes, config, pointers, scalars, {"ADD_DY": True}, aligned)


def _expand(dtypes: tuple[str, str, str], config: LaunchConfig, aligned: bool, backward: bool) -> AotCase:
    x, w, _ = dtypes
    pointers = {"h_ptr": x, "w_ptr": w, "bias_ptr": None if backward else w, "rows_ptr": x}
    pointers |= {"sums_ptr": "fp32" if backward else None, "out_ptr": x}
    scalars: dict[str, Any] = {"T": "i32", "D": "i32", "M": "i32", "scale": None if backward else "fp32"}
    scalars |= {"stride_wm": "i32", "stride_wd": 1} if backward else {"stride_wm": 1, "stride_wd": "i32"}
    scalars |= {"stride_rt": "i32"}
    kernel = "expand dx" if backward else "expand y"
    return _case(kernel, expand_kernel, dtypes, config, pointers, scalars, {"ADD_ROWS": True}, aligned)


def _weight_grad(dtypes: tuple[str, str, str], config: LaunchConfig, aligned: bool) -> AotCase:
    x, _, precision = dtypes
    pointers: dict[str, str | None] = {"dy_ptr": x, "x_ptr": x, "h_ptr": x, "dz_ptr": x}
    pointers |= {"dw_down_ptr": "fp32", "dw_up_ptr": "fp32"}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "tokens_per_split": "i32", "stride_dyt": "i32", "stride_xt": "i32"}
    # The weights themselves are not read here: their dtype does not matter.
    return _case("weight_grad", weight_grad_kernel, (x, x, precision), config, pointers, scalars, {}, aligned)


def cases(arch: str) -> Iterator[AotCase]:
    """Each distinct launch on this architecture ("sm_80" … "gfx942"), once."""
    seen = set()
    for dtypes, m, aligned in product(DTYPES, BOTTLENECKS, (True, False)):
        sizes = (_BYTES[dtypes[0]], _BYTES[dtypes[1]])
        problem = Problem(1024, m, *sizes, dtypes[2], arch, aligned=aligned)
        forward, dx, expand, weight_grad = (select_tiles(phase, problem) for phase in PHASES)
        launches = [_forward(dtypes, forward, aligned), _dx(dtypes, dx, aligned)]
        launches.append(_weight_grad(dtypes, weight_grad, aligned))
        if "split" in (forward.form, dx.form):
            launches += [_expand(dtypes, expand, aligned, False), _expand(dtypes, expand, aligned, True)]
        for case in launches:
            if case.name not in seen:
                seen.add(case.name)
                yield case
