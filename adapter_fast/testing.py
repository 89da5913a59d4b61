"""What tests and benchmarks share: inputs that mean something, the float64 truth, an error budget, canaries, poison."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .reference import reference_adapter

INPUTS = ("x", "w_down", "b_down", "w_up", "b_up", "residual")


@dataclass(frozen=True)
class Case:
    """One problem: T tokens, hidden size d, bottleneck m, and the op's settings."""

    T: int
    d: int
    m: int
    dtype: torch.dtype = torch.float32
    weight_dtype: torch.dtype | None = None
    activation: str = "gelu"
    scale: float = 1.0
    bias: bool = True
    residual: Literal["x", "tensor", "none"] = "x"
    device: str = "cpu"
    seed: int = 0


def make_inputs(case: Case) -> dict[str, Tensor | None]:
    """Leaf tensors of the op that require gradients: x, w_down, b_down, w_up, b_up, residual (None where absent).

    Weights have fan-in scale, W ~ N(0, 1/fan_in), and biases are not zero, so that y - x is as large as x: at the
    paper's initialisation an identity function would pass most tolerances. Values are drawn in float64 and rounded
    once to their dtype, so that every implementation sees the same numbers.
    """
    generator = torch.Generator(case.device).manual_seed(case.seed)

    def draw(*shape: int, std: float = 1.0, dtype: torch.dtype = case.dtype) -> Tensor:
        values = torch.randn(*shape, generator=generator, device=case.device, dtype=torch.float64) * std
        return values.to(dtype).requires_grad_()

    weight_dtype = case.weight_dtype or case.dtype
    inputs: dict[str, Tensor | None] = {
        "x": draw(case.T, case.d),
        "w_down": draw(case.m, case.d, std=case.d**-0.5, dtype=weight_dtype),
        "b_down": draw(case.m, std=0.5, dtype=weight_dtype),
        "w_up": draw(case.d, case.m, std=case.m**-0.5, dtype=weight_dtype),
        "b_up": draw(case.d, std=0.5, dtype=weight_dtype),
        "residual": draw(case.T, case.d) if case.residual == "tensor" else None,
    }
    if not case.bias:
        inputs["b_down"] = inputs["b_up"] = None
    return inputs


def grad_output(case: Case) -> Tensor:
    """A random dy [T, d] in the case's dtype."""
    generator = torch.Generator(case.device).manual_seed(case.seed + 1)
    values = torch.randn(case.T, case.d, generator=generator, device=case.device, dtype=torch.float64)
    return values.to(case.dtype)


def call(op: Any, case: Case, inputs: dict[str, Tensor | None]) -> Tensor:
    """op(...) on these inputs with the case's settings; op is fused_adapter or reference_adapter."""
    residual = {"x": None, "tensor": inputs["residual"], "none": False}[case.residual]
    return op(
        inputs["x"],
        inputs["w_down"],
        inputs["b_down"],
        inputs["w_up"],
        inputs["b_up"],
        residual=residual,
        activation=case.activation,
        scale=case.scale,
    )


def evaluate(op: Any, case: Case, inputs: dict[str, Tensor | None], dy: Tensor) -> dict[str, Tensor]:
    """y and the gradient of every input, by the name of the input."""
    y = call(op, case, inputs)
    present = [name for name in INPUTS if inputs[name] is not None]
    grads = torch.autograd.grad(y, [inputs[name] for name in present], dy)  # type: ignore[arg-type]
    return {"y": y.detach(), **{f"d_{name}": grad for name, grad in zip(present, grads)}}


def in_float64(inputs: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The same numbers as float64 leaves."""
    return {name: None if value is None else value.detach().double().requires_grad_() for name, value in inputs.items()}


def truth(case: Case, inputs: dict[str, Tensor | None], dy: Tensor) -> dict[str, Tensor]:
    """y and all gradients of the oracle in float64, from the very numbers that the other implementations get."""
    return evaluate(reference_adapter, case, in_float64(inputs), dy.double())


def assert_within_budget(
    actual: Tensor, expected: Tensor, eager: Tensor, *, terms: int, name: str = "result", mean: bool = True
) -> None:
    """Raise unless actual is about as close to the float64 truth as PyTorch in the same dtype is.

    Errors are taken relative to the largest value of their row, so that small rows count as much as large ones:

        max error  ≤ 2 · eager's + √terms · ε_acc + 2 · ε_out
        mean error ≤ 1.25 · eager's + ε_out, from 64 elements on: a mean of few is no mean

    For float64 the truth is no better than the result; the bound is then 2 · (√terms + 8) · ε alone.

    Args:
        actual: the result; expected: the truth in float64; eager: PyTorch's result in the dtype of actual.
        terms: length of the longest sum behind one element; ε_acc is float32's (float64's for float64).
        name: what to call it in the message.
        mean: hold the mean error too. Without it a peer passes that sums in another order than PyTorch: right, but less
            exact. Ours never does.

    Raises:
        AssertionError: over budget, not finite where the truth is, or of another shape or dtype than eager.
    """
    if actual.shape != expected.shape or actual.dtype != eager.dtype:
        raise AssertionError(
            f"{name}: got {list(actual.shape)} {actual.dtype}, expected {list(expected.shape)} {eager.dtype}"
        )
    if actual.numel() == 0:
        return
    expected = expected.double()
    rows = expected.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    if expected.dim() == 1 or rows.numel() == expected.numel():
        rows = expected.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    error = (actual.double() - expected).abs() / rows
    base = (eager.double() - expected).abs() / rows
    if not bool(torch.isfinite(error).all()):
        raise AssertionError(f"{name}: {int((~torch.isfinite(error)).sum())} of {error.numel()} elements not finite")
    out = torch.finfo(actual.dtype).eps
    acc = torch.finfo(torch.float64 if actual.dtype == torch.float64 else torch.float32).eps
    limit_max = 2.0 * base.max().item() + math.sqrt(max(terms, 1)) * acc + 2.0 * out
    limit_mean = 1.25 * base.mean().item() + out
    if actual.dtype == torch.float64:
        limit_max = limit_mean = 2.0 * (math.sqrt(max(terms, 1)) + 8.0) * acc
    over_mean = mean and error.numel() >= 64 and error.mean().item() > limit_mean
    if error.max().item() > limit_max or over_mean:
        where = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
        raise AssertionError(
            f"{name}: max error {error.max().item():.2e} (budget {limit_max:.2e}, eager {base.max().item():.2e}), "
            f"mean error {error.mean().item():.2e} (budget {limit_mean:.2e}, eager {base.mean().item():.2e}), "
            f"worst at {where}"
        )


def assert_case(op: Any, case: Case, inputs: dict[str, Tensor | None] | None = None, dy: Tensor | None = None) -> None:
    """Raise unless op's y and every gradient of this case are within budget, in the dtypes they must have."""
    inputs = make_inputs(case) if inputs is None else inputs
    dy = grad_output(case) if dy is None else dy
    actual = evaluate(op, case, inputs, dy)
    expected = truth(case, inputs, dy)
    eager = evaluate(reference_adapter, case, inputs, dy)
    for name, value in actual.items():
        terms = case.T if name.startswith(("d_w", "d_b")) else case.d + case.m
        assert_within_budget(value, expected[name], eager[name], terms=terms, name=f"{name} of {case}")


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill every uninitialised tensor with NaN (integers with their maximum) while the block runs."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


class Canary:
    """A tensor [rows, columns] inside a larger buffer: nobody may write the halo, nobody may read it.

    An input (values given) has a halo of NaN, which spreads where it is read; an output (shape given) has a halo of a
    number, so that even NaN written there shows, and is itself NaN until written.
    view: the tensor; buffer: all of it. halo rows above and below, halo columns right of it.
    """

    def __init__(self, values: Tensor | None, shape: tuple[int, int] | None = None, *, halo: int = 8, **options: Any):
        rows, columns = values.shape if values is not None else shape  # type: ignore[misc]
        options = options or {"dtype": values.dtype, "device": values.device}  # type: ignore[union-attr]
        self._fill = math.nan if values is not None else 4096.0
        self.buffer = torch.full((rows + 2 * halo, columns + halo), self._fill, **options)
        self.view = self.buffer[halo : halo + rows, :columns]
        self.view.fill_(math.nan)
        self._inside = torch.zeros(self.buffer.shape, dtype=torch.bool, device=self.buffer.device)
        self._inside[halo : halo + rows, :columns] = True
        if values is not None:
            self.view.copy_(values.detach())

    def assert_intact(self, name: str) -> None:
        """Raise unless the halo still holds what it was filled with, everywhere."""
        same = torch.isnan(self.buffer) if math.isnan(self._fill) else self.buffer == self._fill
        touched = int((~same & ~self._inside).sum())
        if touched:
            raise AssertionError(f"{name}: {touched} elements written outside of the tensor")


@contextmanager
def bfloat16_interpreter() -> Iterator[None]:
    """Triton's interpreter computes bfloat16 right while the block runs; by itself it multiplies bits and truncates.

    tl.dot multiplies and adds in float32, and casts round to nearest even, as on a GPU. Arithmetic in bfloat16 itself,
    of which the kernels have none, raises. Forward and backward must both run inside. Which backend a bfloat16 call
    takes on a CPU is not changed: PyTorch's, unless a test says otherwise.

    Raises:
        RuntimeError: this Triton's interpreter has not the functions that are mended, or is still wrong with them.
    """
    import numpy as np
    import triton
    import triton.language as tl
    from triton.runtime import interpreter

    refusal = f"bfloat16_interpreter is made for Triton 3.6 and 3.9, and this is {triton.__version__}: "
    builder = getattr(interpreter, "InterpreterBuilder", None)
    names = ("cast_impl", "create_fp_to_fp", "create_dot", "binary_op", "unary_op")
    used = {"TensorHandle": interpreter, "interpreter_builder": interpreter, "_ir": interpreter}
    for name, owner in (used | dict.fromkeys(names, builder)).items():
        if not hasattr(owner, name):
            raise RuntimeError(f"{refusal}triton.runtime.interpreter has no {name} where it was")
    handle, nearest = interpreter.TensorHandle, interpreter._ir.ROUNDING_MODE.RTNE
    before = {name: getattr(builder, name) for name in names}

    def is_bfloat16(value: Any) -> bool:
        return value.dtype.scalar == tl.bfloat16

    def widened(value: Any) -> Any:
        if not is_bfloat16(value):
            return value
        return handle((value.data.astype(np.uint32) << np.uint32(16)).view(np.float32), tl.float32)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        if dst_type.scalar != tl.bfloat16:
            return before["cast_impl"](self, widened(src), dst_type)
        values = before["cast_impl"](self, widened(src), tl.float32).data
        bits = values.view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
        quiet_nan = np.uint32(0x7FC00000)  # rounding could carry a NaN's bits into those of infinity or of zero
        return handle((np.where(np.isnan(values), quiet_nan, rounded) >> np.uint32(16)).astype(np.uint16), tl.bfloat16)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16 and rounding_mode == nearest:
            return self.cast_impl(src, dst_type)
        return before["create_fp_to_fp"](self, src, dst_type, rounding_mode)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return before["create_dot"](self, widened(a), widened(b), *rest)

    def refusing(name: str) -> Any:
        def operator(self: Any, *operands: Any) -> Any:
            if any(is_bfloat16(operand) for operand in operands[:-1]):
                raise TypeError("arithmetic in bfloat16, which the interpreter would do on bits: cast to float32 first")
            return before[name](self, *operands)

        return operator

    mended = (cast_impl, create_fp_to_fp, create_dot, refusing("binary_op"), refusing("unary_op"))
    for name, function in zip(names, mended):
        setattr(builder, name, function)
    try:
        wrong = _wrong_bfloat16(interpreter)
        if wrong:
            raise RuntimeError(f"{refusal}its {wrong} is wrong in bfloat16 though mended")
        yield
    finally:
        for name, function in before.items():
            setattr(builder, name, function)


def _wrong_bfloat16(interpreter: Any) -> str | None:
    """The first of the interpreter's functions that computes known bfloat16 values wrong, or None."""
    import numpy as np
    import triton.language as tl

    handle, builder = interpreter.TensorHandle, interpreter.interpreter_builder
    # Two ties, up and down to the even neighbour; just above a tie; a carry into the exponent; overflow; specials.
    exact = [1.01171875, 1.00390625, 1.00390637, 1.99999, 3.4e38, math.inf, -math.inf, math.nan, -0.0, 1e-40]
    bits = [0x3F82, 0x3F80, 0x3F81, 0x4000, 0x7F80, 0x7F80, 0xFF80, 0x7FC0, 0x8000, 0x0001]
    given, rounded = handle(np.array(exact, np.float32), tl.float32), handle(np.array(bits, np.uint16), tl.bfloat16)
    nearest = interpreter._ir.ROUNDING_MODE.RTNE
    narrow = {
        "create_fp_trunc": lambda: builder.create_fp_trunc(given, tl.bfloat16),
        "create_fp_to_fp": lambda: builder.create_fp_to_fp(given, tl.bfloat16, nearest),
    }
    for name, cast in narrow.items():
        if _attempt(cast) != bits:
            return name
    wide = _attempt(lambda: builder.create_fp_ext(rounded, tl.float32))
    if wide is None or [np.float32(value).view(np.uint32) for value in wide] != [bit << 16 for bit in bits]:
        return "create_fp_ext"
    ones = handle(np.full((2, 2), 0x3F80, np.uint16), tl.bfloat16)
    acc = handle(np.full((2, 2), 0.5, np.float32), tl.float32)
    if _attempt(lambda: builder.create_dot(ones, ones, acc, None, 0)) != [[2.5, 2.5], [2.5, 2.5]]:
        return "create_dot"
    return None


def _attempt(function: Any) -> Any:
    """The values of the handle that function returns, or None where it raises."""
    try:
        return function().data.tolist()
    except Exception:
        return None
