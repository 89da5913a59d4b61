"""The kernels behind the op's tensors-in, tensors-out face: layout, device, launches, final reductions.

The only importer of adapter_fast.kernels; Triton itself is imported at the first launch.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .eager import column_sum
from .layout import as_rows, bias_of, bottleneck, dense

if TYPE_CHECKING:
    from adapter_fast.kernels.shapes import LaunchConfig, Problem

# The interpreter runs the tiles of this architecture, with few programs so that tests stay quick.
INTERPRETED = ("sm_90", 8)


@cache
def _kernels(name: str) -> Any:
    """A module of adapter_fast.kernels, imported when it is first needed: most of them import Triton."""
    try:
        return importlib.import_module(f"adapter_fast.kernels.{name}")
    except Exception as error:  # a Triton that this torch, driver or machine cannot load raises what it likes
        from adapter_fast.kernels.errors import kernel_error

        raise kernel_error(f"import of adapter_fast.kernels.{name}", error) from error


_HERE: AbstractContextManager = nullcontext()


@cache
def _device(index: int) -> tuple[str, int]:
    """Architecture and multiprocessors of a GPU."""
    properties = torch.cuda.get_device_properties(index)
    arch = f"sm_{properties.major}{properties.minor}"
    if torch.version.hip is not None:
        arch = properties.gcnArchName.split(":")[0]
    return arch, properties.multi_processor_count


@cache
def _problem(
    index: int,
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    d: int,
    m: int,
    tokens: int,
    precision: str,
    aligned: bool,
    optional: tuple[str, ...],
    forced: tuple[tuple[str, LaunchConfig], ...],
) -> Problem:
    from adapter_fast.kernels.shapes import Problem

    arch, sms = INTERPRETED if index < 0 else _device(index)
    return Problem(
        D=d,
        M=m,
        x_bytes=dtype.itemsize,
        w_bytes=weight_dtype.itemsize,
        precision=precision,
        arch=arch,
        sms=sms,
        aligned=aligned,
        tokens=tokens,
        device=index,
        optional=optional,
        forced=forced,
    )


def problem(
    device: torch.device,
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    T: int,
    d: int,
    m: int,
    *tensors: Tensor | None,
) -> Problem:
    """What select_tiles needs to know about a launch on this device; tensors: whose alignment counts."""
    tiles = _kernels("tiles")
    index = -1
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    unit = 16 // dtype.itemsize
    aligned = d % unit == 0 and T < 2**31
    if aligned:
        addresses = strides = 0
        for tensor in tensors:
            if tensor is not None:
                addresses |= tensor.data_ptr()
                if tensor.shape[1] == d:  # rows of the hidden size; those of the bottleneck are dense, whatever m
                    strides |= tensor.stride(0)
        aligned = addresses % 16 == 0 and strides % unit == 0
    precision = "ieee" if exact else "tf32"
    return _problem(
        index,
        dtype,
        weight_dtype,
        d,
        m,
        tiles.bucket(T),
        precision,
        aligned,
        _kernels("offers").requested_forms(),
        tiles.forced_choices(),
    )


def _on(device: torch.device) -> AbstractContextManager:
    """Launches inside go to this device, which costs nothing where it is the current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(device)


def launch_form(device: torch.device, dtype: torch.dtype, weight_dtype: torch.dtype, T: int, d: int, m: int) -> str:
    """One phrase on how many launches the two directions take, and why."""
    tiles = _kernels("tiles")
    given = problem(device, dtype, weight_dtype, T, d, m)
    settings = {"forward": tiles.converted("forward", given), "dx": tiles.converted("backward", given)}
    chosen = {phase: tiles.select_tiles(phase, setting) for phase, setting in settings.items()}
    split: dict[str, list[str]] = {}
    for phase, config in chosen.items():
        if config.form == "split":
            split.setdefault(_why(phase, config, settings[phase]), []).append(phase)
    phrases = [f"two launches for {' and '.join(phases)} at m = {m}: {why}" for why, phases in split.items()]
    phrases = phrases or [f"one fused launch each way at m = {m}"]
    phrases += [
        f"the {config.form} form, {_why(phase, config, settings[phase])}"
        for phase, config in chosen.items()
        if config.form in _kernels("offers").OPTIONAL_FORMS
    ]
    converting = [name for name in ("forward", "backward") if tiles.converted(name, given) != given]
    if converting:
        phrases.append(f"weights converted once a call in the {' and the '.join(converting)}")
    return "; ".join(phrases)


def _why(phase: str, config: LaunchConfig, setting: Problem) -> str:
    """Where a choice that is not the fused form comes from."""
    shapes = _kernels("shapes")
    if (phase, config) in setting.forced:
        return "forced"
    if config.form in setting.optional:
        return "asked for"
    if config == _kernels("tuned").choice(phase, setting):
        return "measured"
    if (shapes.family(setting.arch), shapes.kind(setting), shapes.padded(setting.M)) in _kernels("tables").BY_MODEL:
        return "by the model of traffic they move less than one, which is not measured yet"
    return "a fused tile of that width does not fit"


def forward(
    x: Tensor,
    w_down: Tensor,
    b_down: Tensor | None,
    w_up: Tensor,
    b_up: Tensor | None,
    residual: Tensor | None,
    add_x: bool,
    activation: str,
    scale: float,
    save_h: bool,
    save_slope: bool,
    save_z: bool,
) -> tuple[Tensor | None, ...]:
    """x [..., d] → y of that shape, h, slope and z [T, m], the last three None unless asked for."""
    rows = as_rows(x)
    added = rows if add_x else None if residual is None else as_rows(residual)
    w_down, w_up = dense(w_down), dense(w_up)
    T, d = rows.shape
    setting = problem(x.device, x.dtype, w_down.dtype, T, d, w_down.shape[0], rows, added, w_down, w_up)
    setting = _kernels("tiles").converted("forward", setting)
    if setting.w_bytes != w_down.element_size():
        w_down, w_up = w_down.to(x.dtype), w_up.to(x.dtype)
    with _on(x.device):
        y, h, slope, z = _kernels("forward").launch_forward(
            rows,
            w_down,
            bias_of(b_down),
            w_up,
            bias_of(b_up),
            added,
            activation,
            scale,
            save_h,
            save_slope,
            save_z,
            setting,
        )
    return y if x.dim() == 2 else y.view(x.shape), h, slope, z


def backward(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    slope: Tensor | None,
    z: Tensor | None,
    w_down: Tensor | None,
    b_down: Tensor | None,
    w_up: Tensor | None,
    add_x: bool,
    activation: str,
    scale: float,
    weight_dtype: torch.dtype,
    need_x: bool,
    need_w_down: bool,
    need_b_down: bool,
    need_w_up: bool,
    need_b_up: bool,
) -> tuple[Tensor | None, ...]:
    """dy, x [T, d] rows → dx, dw_down, db_down, dw_up, db_up, as in eager.backward."""
    T, d = dy.shape
    m = bottleneck(h, z, w_up)
    if T == 0:
        return _no_tokens(dy, weight_dtype, m, need_x, need_w_down, need_b_down, need_w_up, need_b_up)
    dx = dz = dw_down = db_down = dw_up = sums = None
    need_dz = need_x or need_w_down or need_b_down
    if not (need_dz or need_w_up):
        return None, None, None, None, _bias_grad(dy, scale, weight_dtype) if need_b_up else None
    # Hooks on saved tensors may have changed the layout of what the forward itself had made.
    saved = (h, slope, z, w_down, w_up)
    h, slope, z, w_down, w_up = (None if tensor is None else dense(tensor) for tensor in saved)
    b_down = bias_of(b_down)
    setting = problem(dy.device, dy.dtype, weight_dtype, T, d, m, dy, x, h, slope, z, w_down, w_up)
    setting = _kernels("tiles").converted("backward", setting)
    if setting.w_bytes != weight_dtype.itemsize:
        w_down, w_up = (None if weight is None else weight.to(dy.dtype) for weight in (w_down, w_up))
    save_h = need_w_up and h is None
    with _on(dy.device):
        if need_dz and w_up is not None:
            dx, made, dz, db_down = _kernels("backward").launch_dx(
                dy, x, slope, z, w_down, b_down, w_up, add_x, activation, scale, need_x, save_h, need_w_down,
                need_b_down, setting,
            )  # fmt: skip
            h = made if save_h else h
        if need_w_down or need_w_up:
            read_x, read_h = x if need_w_down else None, h if need_w_up else None
            dw_down, dw_up, sums = _kernels("backward").launch_weight_grad(
                dy, read_x, read_h, dz, m, need_b_up, setting
            )
        dw_down, dw_up, db_down, db_up = _kernels("reduce").launch_reduce(
            dw_down, dw_up, db_down, sums, scale, weight_dtype, setting
        )
        if need_b_up and sums is None:
            db_up = _bias_grad(dy, scale, weight_dtype)
    return dx, dw_down, db_down, dw_up, db_up


def _bias_grad(dy: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    total = column_sum(dy)
    return (total if scale == 1.0 else total.mul_(scale)).to(dtype)


def _no_tokens(dy: Tensor, dtype: torch.dtype, m: int, *need: bool) -> tuple[Tensor | None, ...]:
    d = dy.shape[-1]
    shapes = ((0, d), (m, d), (m,), (d, m), (d,))
    dtypes = (dy.dtype, dtype, dtype, dtype, dtype)
    return tuple(
        dy.new_zeros(shape, dtype=kind) if needed else None for shape, kind, needed in zip(shapes, dtypes, need)
    )
