"""Every launch that select_tiles can ask for, as arguments for an ahead-of-time compilation: no GPU, no tensors.

`make aot` compiles these for each named architecture and fails on a spill. A case holds what the compiler would see of
a call with all biases, everything saved and every gradient needed; in aligned ones pointers are multiples of 16 bytes
and UNIT says that rows are, in ragged ones nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import triton.language as tl

from .backward import bottleneck_dx_kernel, weight_grad_kernel
from .expand import expand_kernel
from .forward import bottleneck_forward_kernel
from .chunked import MAX_CHUNKS, backward_queue_kernel
from .reduce import BLOCK_N, BLOCK_R, reduce_kernel
from .shapes import TOKENS, LaunchConfig, Phase, Problem
from .sliced import bottleneck_sliced_kernel, slots_at_once
from .tiles import OPTIONAL_FORMS, select_tiles

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
PHASES: tuple[Phase, ...] = ("forward", "dx", "dx_z", "dx_x", "expand", "weight_grad", "queue")
HIDDEN = (768, 1024, 4096)
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
    unit: int,
) -> AotCase:
    x_dtype, w_dtype, precision = dtypes
    types = {name: f"*{dtype}" for name, dtype in pointers.items() if dtype is not None}
    types |= {name: kind for name, kind in scalars.items() if isinstance(kind, str)}
    fixed: dict[str, Any] = {name: None for name, dtype in pointers.items() if dtype is None}
    fixed |= {name: value for name, value in scalars.items() if not isinstance(value, str)}
    fixed |= constexprs | {"PRECISION": precision, "ACC_DTYPE": tl.float32, "UNIT": unit}
    fixed |= {"BLOCK_T": config.BLOCK_T, "BLOCK_D": config.BLOCK_D, "BLOCK_M": config.BLOCK_M}
    rows = "aligned" if unit > 1 else "ragged"
    biases = ("b_down_ptr", "b_up_ptr", "bias_ptr")
    tiles = f"{config.BLOCK_T}x{config.BLOCK_D}x{config.BLOCK_M} w{config.num_warps} s{config.num_stages}"
    tiles += " loop" if constexprs.get("LOOP") else ""
    tiles += " partial sums" if constexprs.get("PARTIAL_SUMS") else ""
    return AotCase(
        name=f"{kernel} {config.form} {x_dtype}/{w_dtype} {precision} {rows} {tiles}",
        fn=fn,
        signature=types,
        constexprs=fixed,
        divisible_by_16=tuple(name for name in pointers if unit > 1 and name in types and name not in biases),
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


def _forward(dtypes: tuple[str, str, str], config: LaunchConfig, unit: int) -> AotCase:
    x, w, _ = dtypes
    split = config.form == "split"
    pointers = {"x_ptr": x, "w_down_ptr": w, "b_down_ptr": w, "w_up_ptr": w, "b_up_ptr": w, "residual_ptr": x}
    pointers |= {"y_ptr": None if split else x, "h_ptr": x, "slope_ptr": x, "z_ptr": None}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "scale": "fp32", "stride_xt": "i32", "stride_rt": "i32"}
    constants = {"ACTIVATION": "gelu", "PARTIAL_SUMS": config.partial_sums, "EVICT_FIRST": config.evict_first}
    constants["LOOP"] = config.programs_per_sm > 0
    return _case("forward", bottleneck_forward_kernel, dtypes, config, pointers, scalars, constants, unit)


def _dx(phase: Phase, dtypes: tuple[str, str, str], config: LaunchConfig, unit: int) -> AotCase:
    x, w, _ = dtypes
    split, lean = config.form == "split", phase == "dx_x"
    pointers = {"dy_ptr": x, "x_ptr": x if lean else None, "h_ptr": None if phase == "dx" else x}
    pointers |= {"slope_ptr": x if phase == "dx" else None, "z_ptr": x if phase == "dx_z" else None, "w_up_ptr": w}
    pointers |= {"w_down_ptr": w if lean or not split else None, "b_down_ptr": w if lean else None}
    pointers |= {"dx_ptr": None if split else x, "dz_ptr": x, "db_down_ptr": "fp32"}
    pointers |= {"db_up_ptr": None if split else "fp32"}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "scale": "fp32", "stride_dyt": "i32", "stride_xt": "i32"}
    constants = {"ADD_DY": True, "ACTIVATION": "gelu", "EVICT_FIRST": config.evict_first}
    constants["LOOP"] = config.programs_per_sm > 0
    return _case(phase, bottleneck_dx_kernel, dtypes, config, pointers, scalars, constants, unit)


def _expand(dtypes: tuple[str, str, str], config: LaunchConfig, unit: int, backward: bool) -> AotCase:
    x, w, _ = dtypes
    pointers = {"h_ptr": x, "w_ptr": w, "bias_ptr": None if backward else w, "rows_ptr": x}
    pointers |= {"sums_ptr": "fp32" if backward else None, "out_ptr": x}
    scalars: dict[str, Any] = {"T": "i32", "D": "i32", "M": "i32", "scale": None if backward else "fp32"}
    scalars |= {"stride_rt": "i32"}
    kernel = "expand dx" if backward else "expand y"
    constants = {"ADD_ROWS": True, "TRANSPOSED": backward}
    return _case(kernel, expand_kernel, dtypes, config, pointers, scalars, constants, unit)


def _weight_grad(dtypes: tuple[str, str, str], config: LaunchConfig, unit: int) -> AotCase:
    x, _, precision = dtypes
    pointers: dict[str, str | None] = {"dy_ptr": x, "x_ptr": x, "h_ptr": x, "dz_ptr": x}
    pointers |= {"dw_down_ptr": "fp32", "dw_up_ptr": "fp32"}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "tokens_per_split": "i32", "stride_dyt": "i32", "stride_xt": "i32"}
    # The weights themselves are not read here: their dtype does not matter.
    return _case("weight_grad", weight_grad_kernel, (x, x, precision), config, pointers, scalars, {}, unit)


def _sliced(dtypes: tuple[str, str, str], config: LaunchConfig, problem: Problem) -> Iterator[AotCase]:
    x, w, _ = dtypes
    pointers: dict[str, str | None] = {"x_ptr": x, "w_down_ptr": w, "b_down_ptr": w, "w_up_ptr": w, "b_up_ptr": w}
    pointers |= {"residual_ptr": x, "y_ptr": x, "h_ptr": x, "slope_ptr": x, "z_ptr": None, "parts_ptr": "fp32"}
    scalars = {"T": "i32", "D": "i32", "M": "i32", "scale": "fp32", "stride_xt": "i32", "stride_rt": "i32"}
    slots = slots_at_once(config, -(-problem.D // config.BLOCK_D))
    for phase in ("both", "first", "second"):
        pointers["counters_ptr"] = "i32" if phase == "both" else None
        constants = {"ACTIVATION": "gelu", "PHASE": phase, "SLOTS": slots}
        kernel = f"sliced {phase}"
        yield _case(kernel, bottleneck_sliced_kernel, dtypes, config, pointers, scalars, constants, problem.unit)


def _resident(dtypes: tuple[str, str, str], config: LaunchConfig, problem: Problem) -> Iterator[AotCase]:
    from .resident import aot_case  # needs a Triton with Gluon

    x, w, precision = dtypes
    for residual, saved in (("x", ("h", "slope")), ("x", ("z",)), ("x", ()), ("tensor", ("h", "slope"))):
        made = aot_case(problem.D, problem.M, x, residual=residual, saved=saved, config=config)
        what = f"{residual} {'+'.join(saved) or 'nothing'}"
        sizes = f"d{problem.D} {config.BLOCK_T}x{config.BLOCK_D}x{config.BLOCK_M} w{config.num_warps}"
        yield AotCase(
            name=f"resident {what} {x} {sizes}",
            expects_tensor_core=True,
            kernel="resident",
            form=config.form,
            x_dtype=x,
            w_dtype=w,
            precision=precision,
            BLOCK_T=config.BLOCK_T,
            BLOCK_D=config.BLOCK_D,
            BLOCK_M=config.BLOCK_M,
            **made,
        )


def _queue(dtypes: tuple[str, str, str], config: LaunchConfig, unit: int) -> Iterator[AotCase]:
    x, w, _ = dtypes
    scalars = {"T": "i32", "D": "i32", "M": "i32", "scale": "fp32", "stride_dyt": "i32", "stride_xt": "i32"}
    scalars |= {"chunks": "i32", "chunk_tokens": "i32", "ahead": "i32"}
    for mode in ("slope", "z", "x"):
        pointers = {"dy_ptr": x, "x_ptr": x, "h_ptr": x, "slope_ptr": x if mode == "slope" else None}
        pointers |= {"z_ptr": x if mode == "z" else None, "w_up_ptr": w, "w_down_ptr": w}
        pointers |= {"b_down_ptr": w if mode == "x" else None, "dx_ptr": x, "dz_ptr": x, "db_down_ptr": "fp32"}
        pointers |= dict.fromkeys(("db_up_ptr", "dw_down_ptr", "dw_up_ptr"), "fp32")
        pointers |= dict.fromkeys(("tickets_ptr", "done_ptr"), "i32")
        constants = {"MAKE_H": mode != "slope", "ADD_DY": True, "ACTIVATION": "gelu"}
        constants |= {"EVICT_FIRST": config.evict_first, "SLOTS": MAX_CHUNKS}
        yield _case(f"queue {mode}", backward_queue_kernel, dtypes, config, pointers, scalars, constants, unit)


def _reduce(w_dtype: str) -> AotCase:
    names = ("dw_down", "dw_up", "db_down", "db_up")
    signature = {f"{name}_ptr": "*fp32" for name in names} | {f"{name}_out_ptr": f"*{w_dtype}" for name in names}
    integers = dict.fromkeys(("D", "M", "slots", "rows_down", "rows_up"), "i32")
    return AotCase(
        name=f"reduce to {w_dtype}",
        fn=reduce_kernel,
        signature=signature | integers | {"scale": "fp32"},
        constexprs={"BLOCK_R": BLOCK_R, "BLOCK_N": BLOCK_N},
        divisible_by_16=tuple(signature),
        num_warps=4,
        num_stages=3,
        expects_tensor_core=False,
        kernel="reduce",
        form="",
        x_dtype="fp32",
        w_dtype=w_dtype,
        precision="ieee",
        BLOCK_T=BLOCK_R,
        BLOCK_D=BLOCK_N,
        BLOCK_M=0,
    )


def _launches(dtypes: tuple[str, str, str], problem: Problem) -> Iterator[AotCase]:
    split = False
    for phase in PHASES:
        config = select_tiles(phase, problem)
        if config is None:
            continue
        if config.form == "resident":
            yield from _resident(dtypes, config, problem)
        elif config.form == "sliced":
            yield from _sliced(dtypes, config, problem)
        elif phase == "queue":
            yield from _queue(dtypes, config, problem.unit)
        elif phase == "forward":
            split |= config.form == "split"
            yield _forward(dtypes, config, problem.unit)
        elif phase == "weight_grad":
            yield _weight_grad(dtypes, config, problem.unit)
        elif phase == "expand":
            if split:
                yield _expand(dtypes, config, problem.unit, False)
                yield _expand(dtypes, config, problem.unit, True)
        else:
            split |= config.form == "split"
            yield _dx(phase, dtypes, config, problem.unit)


def cases(arch: str) -> Iterator[AotCase]:
    """Each distinct launch on this architecture ("sm_80" … "gfx942"), once."""
    yield from (_reduce(dtype) for dtype in _BYTES)
    seen = set()
    for dtypes, m, aligned, tokens, d in product(DTYPES, BOTTLENECKS, (True, False), TOKENS, HIDDEN):
        sizes = (_BYTES[dtypes[0]], _BYTES[dtypes[1]])
        problem = Problem(d, m, *sizes, dtypes[2], arch, aligned=aligned, tokens=tokens)
        for optional in ((), *((form,) for form in OPTIONAL_FORMS)):
            for case in _launches(dtypes, replace(problem, optional=optional)):
                if case.name not in seen:
                    seen.add(case.name)
                    yield case
