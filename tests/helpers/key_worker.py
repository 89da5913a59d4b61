"""What Triton's own binder makes of the arguments of every launch, no kernel compiled. Run with TRITON_INTERPRET unset.

    python key_worker.py calls     random calls of fused_adapter: each kept launch, against all calls that share it
    python key_worker.py aot       the calls that benchmarks/tiles/aot/cases.py stands for, against its cases

Prints JSON.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from fake_gpu import fake_gpu

from adapter_fast import fused_adapter
from adapter_fast.benchmarks.tiles.aot import cases as aot_cases
from adapter_fast.checks import ACTIVATIONS, MEMORY_MODES
from adapter_fast.kernels import launch as plan
from adapter_fast.kernels import offers, tiles
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.ops import problem as ops_problem

B, H, F = torch.bfloat16, torch.float16, torch.float32


def bound(kept, arguments):
    """(parameter, type, whether a multiple of 16 to the compiler) of a launch, or (parameter, "constexpr", value)."""
    *_, binder = kept.kernel.device_caches[0]
    _, specialization, _ = binder(**arguments, **kept.constants, **kept.options)
    return tuple(
        (name, kind, str(told) if kind == "constexpr" else "D" in (told or ""))
        for name, (kind, told, *_) in zip(kept.kernel.arg_names, specialization, strict=True)
    )


@contextmanager
def machine(sms, device=0):
    """An sm_90 with so many multiprocessors; device -1: whose programs cannot wait."""
    before, problem = ops_problem.INTERPRETED, ops_problem._problem
    ops_problem.INTERPRETED = ("sm_90", sms)
    problem.cache_clear()
    ops_problem._problem = lambda *args: replace(problem(*args), device=device)
    try:
        yield
    finally:
        ops_problem.INTERPRETED, ops_problem._problem = before, problem
        problem.cache_clear()


def laid_out(layout, *shape, dtype):
    """An uninitialised tensor: dense, with wider rows, off 16 bytes, all rows the same, transposed, or one far row."""
    *rows, d = shape
    if layout == "wide":
        return torch.empty(*rows, d + 16, dtype=dtype)[..., 8 : 8 + d]
    if layout == "odd":
        return torch.empty(*rows, d + 3, dtype=dtype)[..., 1 : 1 + d]
    if layout == "off":
        return torch.empty(torch.Size(shape).numel() + 1, dtype=dtype)[1:].view(shape)
    if layout == "same":
        return torch.empty(*(1 for _ in rows), d, dtype=dtype).expand(shape)
    if layout == "across":
        return torch.empty(*reversed(shape), dtype=dtype).permute(*reversed(range(len(shape))))
    if layout == "far" and rows == [1]:  # any stride will do for a single row
        return torch.empty(d, dtype=dtype).as_strided((1, d), (2**34, 1))
    return torch.empty(shape, dtype=dtype)


# x, its like and weights where a launch may be kept, and now and then where it may not.
ROWS = ("dense", "dense", "dense", "wide", "wide", "same", "far", "across", "odd")
WEIGHTS = (*("dense",) * 6, "across", "off")
FORCED = (
    {},
    {"forward": LaunchConfig("sliced", 64, 64, 64, 8, 1, partial_sums=True)},
    {p: LaunchConfig("split", 64, 64, 64, 4, 2) for p in ("forward", "dx", "dx_z", "dx_x", "expand")},
    {p: LaunchConfig("fused", 64, 64, 64, 4, 2) for p in ("forward", "dx", "dx_z", "dx_x")},
)


@contextmanager
def setting(pick):
    """A kind of call, whose tiles and dtypes are settled."""
    d, m = pick(((128, 64), (128, 16), (768, 64), (128, 256), (136, 24)))
    dtypes = pick(((B, B), (B, F), (H, F), (F, F), (F, B)))
    forms, choices, precision = pick(("", "sliced")), pick(FORCED), pick(("highest", "high"))
    torch.set_float32_matmul_precision(precision)
    asked = offers.requested_forms
    offers.requested_forms = lambda: tuple(form for form in (forms,) if form)
    with tiles.forced(**choices if m <= 64 else {}):
        yield d, m, *dtypes, pick(ACTIVATIONS)
    offers.requested_forms = asked


def call_at_random(pick, d, m, dtype, weight_dtype, activation):
    """One forward, most often with its backward, of fused_adapter; returns what was called."""
    T, need = pick((0, 1, 1, 2, 64, 130, 300)), [pick((True, True, True, True, False)) for _ in range(5)]
    layouts = {name: pick(ROWS) for name in ("x", "residual", "dy")}
    layouts |= {name: pick(WEIGHTS) for name in ("w_down", "w_up")}
    layouts |= {name: pick(("dense", "off", "same", "none")) for name in ("b_down", "b_up")}
    shapes = {"x": (T, d), "w_down": (m, d), "b_down": (m,), "w_up": (d, m), "b_up": (d,)}
    given = {}
    for (name, shape), needed in zip(shapes.items(), need, strict=True):
        kind = dtype if name == "x" else weight_dtype
        given[name] = None if layouts[name] == "none" else laid_out(layouts[name], *shape, dtype=kind)
        if given[name] is not None:
            given[name].requires_grad_(needed)
    residual, training = pick(("x", "none", "tensor")), pick((True, True, True, False))
    given["residual"] = {"x": None, "none": False, "tensor": laid_out(layouts["residual"], T, d, dtype=dtype)}[residual]
    settings = {"activation": activation, "memory": pick(MEMORY_MODES), "scale": pick((1.0, 0.5, 1, 16))}
    # What was saved may come back in another layout.
    unpack = layouts["unpack"] = pick(("dense", "dense", "dense", "wide", "across", "off"))
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.detach(), lambda t: t if unpack == "dense" else laid_out(unpack, *t.shape, dtype=t.dtype)
    )
    with hooks, nullcontext() if training else torch.no_grad():
        y = fused_adapter(**given, **settings)
        if y.requires_grad:
            leaves = [v for v in given.values() if isinstance(v, torch.Tensor) and v.requires_grad]
            torch.autograd.grad(y, leaves, laid_out(layouts["dy"], T, d, dtype=dtype), allow_unused=True)
    return f"T={T} d={d} m={m} {dtype} {weight_dtype} {layouts} {settings} residual {residual}, gradients of {need}"


def calls(settings, count):
    """Random calls: how many launches were kept and shared, by kernel, and where two calls of one would differ."""
    draw = random.Random(0)
    first, shared, wrong = {}, {}, []
    with fake_gpu(), machine(132):
        for _ in range(settings):
            with setting(draw.choice) as settled:
                for _ in range(count):
                    with plan.recorded() as launches:
                        said = call_at_random(draw.choice, *settled)
                    for kept, arguments in launches:
                        if kept.keep:
                            name, found = kept.kernel.__name__, bound(kept, arguments)
                            shared[name] = shared.get(name, 0) + (kept in first)
                            expected = first.setdefault(kept, found)
                            differ = [f"{a}, then {b}" for a, b in zip(expected, found, strict=True) if a != b]
                            wrong += [f"{name}: {'; '.join(differ)} of {said}"] if differ else []
    return {"launches": len(first), "shared": shared, "wrong": sorted(wrong, key=len)}


def aot():
    """What the cases of sm_90 compile and no call launches, and what a call launches and no case compiles."""
    cases = {}
    for case in aot_cases.cases("sm_90"):
        told = tuple(
            (name, "constexpr", str(case.constexprs[name]))
            if name in case.constexprs
            else (name, case.signature[name], name in case.divisible_by_16)
            for name in case.fn.arg_names
        )
        cases[case.fn.__name__, told, str(case.options)] = case.name
    launched, of_speed = set(), {}
    forms = ("", *offers.OPTIONAL_FORMS)
    grid = product(aot_cases.DTYPES, aot_cases.SHAPES, tiles.TOKENS, forms)
    for (x_dtype, w_dtype, precision), (d, m, aligned), tokens, form in grid:
        if form and (not aligned or x_dtype == "fp32"):
            continue  # no optional form there
        layout = "dense" if aligned else "off"
        shapes = {"x": (tokens, d), "w_down": (m, d), "b_down": (m,), "w_up": (d, m), "b_up": (d,)}
        kinds = {name: aot_cases._DTYPES[x_dtype if name == "x" else w_dtype] for name in shapes}
        given = {name: laid_out(layout, *shape, dtype=kinds[name]).requires_grad_() for name, shape in shapes.items()}
        dy = laid_out(layout, tokens, d, dtype=kinds["x"])
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        offers.requested_forms = partial(tuple, (form,) if form else ())
        calls = [(memory, 0) for memory in MEMORY_MODES] + [("speed", -1)] * (form == "sliced")
        for memory, device in calls:
            with fake_gpu(), machine(132, device), plan.recorded() as launches:
                torch.autograd.grad(fused_adapter(**given, memory=memory), list(given.values()), dy)
                for kept, arguments in launches:
                    key = kept.kernel.__name__, bound(kept, arguments), str(kept.options)
                    launched.add(key)
                    if memory == "speed":
                        of_speed[key] = f"{key[0]} for {x_dtype}/{w_dtype} m={m} d={d} {tokens} {form} {layout}"
    return {
        "cases": len(cases),
        "never launched": sorted(name for key, name in cases.items() if key not in launched),
        "never compiled": sorted(said for key, said in of_speed.items() if key not in cases),
    }


if __name__ == "__main__":
    print(json.dumps(calls(60, 80) if sys.argv[1] == "calls" else aot()))
