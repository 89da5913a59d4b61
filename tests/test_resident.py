"""The x-resident forward: its own source under the emulator, the emulator's sharpness, its limits, its compilation."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gluon_emulator import EmulatedKernel, Fault, Machine

import adapter_fast.kernels.activations as activations
from adapter_fast.checks import ACTIVATIONS
from adapter_fast.kernels import resident, resident_tiles
from adapter_fast.kernels.tiles import LaunchConfig
from adapter_fast.reference import reference_adapter
from adapter_fast.testing import Canary, Case, assert_within_budget, call, in_float64, make_inputs

SOURCE = Path(resident.__file__).read_text()
ACTIVATION_SOURCE = Path(activations.__file__).read_text()
SAVED = ("h", "slope", "z")


class Guarded:
    """A dense [rows, columns] of NaN between two margins that nobody may write."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype):
        self.buffer = torch.full((rows * columns + 256,), 4096.0, dtype=dtype)
        self.view = self.buffer[128 : 128 + rows * columns].view(rows, columns).fill_(torch.nan)

    def assert_intact(self, name: str) -> None:
        margins = torch.cat((self.buffer[:128], self.buffer[-128:]))
        assert bool((margins == 4096.0).all()), f"{name}: written outside of the tensor"


def emulate(monkeypatch, source: str = SOURCE) -> EmulatedKernel:
    """Let launch_resident run this source on the CPU."""
    kernel = EmulatedKernel(source, "resident_forward_kernel", ACTIVATION_SOURCE)
    monkeypatch.setattr(resident, "resident_forward_kernel", kernel)
    resident._launch.cache_clear()  # which holds another test's kernel
    return kernel


def run(
    case: Case, saved: tuple[str, ...] = (), config: LaunchConfig | None = None, inputs: dict | None = None
) -> dict[str, torch.Tensor]:
    """y and what is saved, through the real launcher; x and a residual are strided views in a halo of NaN."""
    inputs = make_inputs(case) if inputs is None else inputs
    inputs = {name: None if value is None else value.detach() for name, value in inputs.items()}
    x = Canary(inputs["x"])
    other = Canary(inputs["residual"]) if case.residual == "tensor" else None
    outputs = {name: Guarded(case.T, case.m, case.dtype) for name in saved}
    outputs["y"] = Guarded(case.T, case.d, case.dtype)
    resident.launch_resident(
        x=x.view,
        w_down=inputs["w_down"],
        b_down=inputs["b_down"],
        w_up=inputs["w_up"],
        b_up=inputs["b_up"],
        residual={"x": x.view, "tensor": other.view if other else None, "none": None}[case.residual],
        activation=case.activation,
        scale=case.scale,
        y=outputs["y"].view,
        **{name: outputs[name].view if name in saved else None for name in SAVED},
        config=config or resident_tiles.tiles(case.d, case.m),
    )
    for name, output in outputs.items():
        output.assert_intact(name)
    return {name: output.view for name, output in outputs.items()}


def expected(case: Case) -> dict[str, torch.Tensor]:
    """y, h, slope and z in float64."""
    inputs = in_float64(make_inputs(case))
    z = inputs["x"] @ inputs["w_down"].t() + (0.0 if inputs["b_down"] is None else inputs["b_down"])
    eye = torch.eye(case.m, dtype=torch.float64)
    z = z.detach().requires_grad_()
    h = reference_adapter(z, eye, None, eye, None, residual=False, activation=case.activation)
    (slope,) = torch.autograd.grad(h.sum(), z)
    return {"y": call(reference_adapter, case, inputs).detach(), "h": h.detach(), "slope": slope, "z": z.detach()}


def assert_right(case: Case, saved: tuple[str, ...] = (), config: LaunchConfig | None = None) -> None:
    actual, truth = run(case, saved, config), expected(case)
    eager = {name: value.to(case.dtype) for name, value in truth.items()}
    eager["y"] = call(reference_adapter, case, make_inputs(case)).detach()
    for name, value in actual.items():
        terms = case.d + case.m if name == "y" else case.d
        assert_within_budget(value, truth[name], eager[name], terms=terms, name=f"{name} of {case}")


@pytest.mark.parametrize("bias, residual, saved", [
    (True, "x", ("h", "slope")),
    (False, "tensor", ("z",)),
    (True, "none", ()),
    (False, "x", ("h", "slope", "z")),
    (True, "tensor", ("h",)),
])  # fmt: skip
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_form(activation, bias, residual, saved, monkeypatch):
    emulate(monkeypatch)
    dtype = torch.bfloat16 if bias else torch.float16
    assert_right(Case(130, 96, 16, dtype, activation=activation, scale=0.75, bias=bias, residual=residual), saved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("T, d, m", [(1, 32, 16), (63, 64, 32), (64, 192, 64), (65, 256, 128), (200, 800, 64)])
def test_every_shape(T, d, m, dtype, monkeypatch):
    emulate(monkeypatch)
    for residual in ("x", "tensor"):
        assert_right(Case(T, d, m, dtype, residual=residual), ("h", "slope"))


@pytest.mark.parametrize("ahead", [1, 2, 3, 4])
@pytest.mark.parametrize("block_t, block_d", [(64, 32), (64, 64), (128, 64), (64, 128)])
def test_every_tile(block_t, block_d, ahead, monkeypatch):
    emulate(monkeypatch)
    config = LaunchConfig("resident", block_t, block_d, 32, block_t // 16, ahead)
    assert_right(Case(150, 512, 32, torch.bfloat16, residual="tensor"), ("z",), config)


def test_x_is_read_once_and_y_written_once(monkeypatch):
    kernel = emulate(monkeypatch)
    run(Case(130, 192, 16, torch.bfloat16), ("h", "slope"))
    assert kernel.traffic["x_ptr", "read"] == kernel.traffic["y_ptr", "written"] == 130 * 192
    assert kernel.traffic["h_ptr", "written"] == kernel.traffic["slope_ptr", "written"] == 130 * 16
    assert kernel.traffic["w_down_ptr", "read"] == kernel.traffic["w_up_ptr", "read"] == 3 * 16 * 192
    assert kernel.traffic["residual_ptr", "read"] == 0


def test_a_row_does_not_depend_on_its_batch(monkeypatch):
    emulate(monkeypatch)
    case = Case(130, 96, 16, torch.bfloat16)
    inputs = make_inputs(case)
    whole = run(case)["y"]
    for rows in (slice(0, 1), slice(3, 70), slice(64, 130)):
        part = run(replace(case, T=rows.stop - rows.start), inputs=inputs | {"x": inputs["x"][rows]})["y"]
        assert torch.equal(part, whole[rows])


def test_nan_stays_in_its_row(monkeypatch):
    emulate(monkeypatch)
    case = Case(70, 96, 16, torch.bfloat16)
    inputs = make_inputs(case)
    clean = run(case)["y"]
    inputs["x"].data[5, 40] = torch.nan
    y = run(case, inputs=inputs)["y"]
    others = torch.arange(70) != 5
    assert bool(y[5].isnan().all()) and torch.equal(y[others], clean[others])


WAIT = "        async_copy.wait_group(BLOCKS - 1 - i)\n"
WAIT_RESIDUAL = "            async_copy.wait_group(BLOCKS - 2 - i)\n"
FENCE, BARRIER = "        fence_async_shared()\n", "        barrier()\n"
LAST_STORE = "    barrier()\n    gl.store(\n        y_rows + (BLOCKS - 1) * BLOCK_D,"
# name → (old, new, which of several, what is said)
MUTANTS = {
    "no wait for x": (WAIT, "", 0, "copy was not waited for"),
    "wait for x a group too early": (WAIT, WAIT.replace("- i)", "- i + 1)"), 0, "copy was not waited for"),
    "no fence in the first loop": (FENCE, "", 0, "no fence between"),
    "no fence in the second loop": (FENCE, "", 1, "no fence between"),
    "no barrier in the first loop": (FENCE + BARRIER, FENCE, 0, "no barrier since it was written"),
    "no barrier in the second loop": (FENCE + BARRIER, FENCE, 1, "no (barrier|fence)"),
    "barrier before the fence": (FENCE + BARRIER, BARRIER + FENCE, 0, "no fence between"),
    "barrier before the fence, second loop": (FENCE + BARRIER, BARRIER + FENCE, 1, "no fence between"),
    "barrier before the wait": (WAIT + FENCE + BARRIER, FENCE + BARRIER + WAIT, 0, "no barrier since it was written"),
    "no barrier between the loops": ("    barrier()\n    if resid", "    if resid", 0, "no barrier since"),
    "no barrier before the last store": (LAST_STORE, LAST_STORE[14:], 0, "no barrier since it was written"),
    "no wait for z": ("z = warpgroup_mma_wait(0, deps=(z,))", "z = z", 0, "not waited for"),
    "wait for z leaves one": ("mma_wait(0, deps=(z,))", "mma_wait(1, deps=(z,))", 0, "the wait does not cover"),
    "wait for y leaves one": ("mma_wait(0, deps=(y, h))", "mma_wait(1, deps=(y, h))", 0, "the wait does not cover"),
    "W_down over the one in use": ("w_down_slots[(i + 1) % 2].store", "w_down_slots[i % 2].store", 0, "under way"),
    "W_up over the one in use": ("w_up_slots[(i + 1) % 2].store", "w_up_slots[i % 2].store", 0, "under way reads"),
    "no wait for the residual": (WAIT_RESIDUAL, "            pass\n", 0, "copy was not waited for"),
    "wait for the residual too early": (WAIT_RESIDUAL, WAIT_RESIDUAL.replace("2", "1"), 0, "copy was not waited for"),
    "no wait for its first block": ("async_copy.wait_group(BLOCKS - 1)\n", "pass\n", 0, "copy was not waited for"),
    "no barrier after its first block": (
        "wait_group(BLOCKS - 1)\n        barrier()", "wait_group(BLOCKS - 1)", 0, "no barrier since it was written"
    ),
    "residual read as y is stored": (
        "y += residual.to(", "y += x_tile[i].load(y_layout).to(", 0, "no barrier since it was last used"
    ),
    "copies left uncommitted": ("async_copy.commit_group()", "pass", 0, "not waited for"),
    "copy of x without its mask": ("x_rows + i * BLOCK_D, mask=mask_t[:, None]", "x_rows + i * BLOCK_D", 0, "outside"),
    "store of y without its mask": ("mask=mask_t[:, None],\n        eviction", "eviction", 0, "outside"),
    "store of h without its mask": ("values, mask=mask[:, None])", "values)", 0, "outside"),
    "x in steps of elements": ("(offs_t * (stride_xt8 * 8))", "(offs_t * stride_xt8)", 0, "max error|not finite"),
    "residual forgotten": ("or residual_ptr is not None:\n            y", ":\n            y", 0, "max error"),
    "bias of another block": ("b_up_ptr + i * BLOCK_D", "b_up_ptr + 0 * BLOCK_D", 0, "max error"),
    "scale forgotten": ("        y *= scale\n", "", 0, "max error"),
    "a block of y stored twice": ("y_rows + (i - 1) * BLOCK_D", "y_rows + 0 * BLOCK_D", 0, "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_emulator_catches(name, monkeypatch):
    old, new, which, said = MUTANTS[name]
    parts = SOURCE.split(old)
    assert len(parts) > which + 1, f"{old!r} is no longer in kernels/resident.py"
    emulate(monkeypatch, old.join(parts[: which + 1]) + new + old.join(parts[which + 1 :]))
    case = Case(67, 192, 16, torch.bfloat16, scale=0.75, residual="tensor")
    with pytest.raises(AssertionError, match=said):
        assert_right(case, SAVED)


def test_a_buffer_is_free_after_the_wait_and_a_barrier():
    machine = Machine(0, 4)
    a, b = (machine.allocate(torch.float16, [64, 16], None) for _ in range(2))
    values = torch.ones(64, 16, dtype=torch.float16)
    a.store(values)
    b.store(values)
    machine.fence()
    machine.barrier()
    product = machine.mma(a, b.permute((1, 0)), torch.zeros(64, 64), is_async=True)
    with pytest.raises(Fault, match="under way reads"):
        b.store(values)
    machine.wait_products(0, deps=(product,))
    with pytest.raises(Fault, match="since it was last used"):
        b.store(values)
    machine.barrier()
    b.store(values)


def test_what_the_launcher_refuses(monkeypatch):
    emulate(monkeypatch)
    config = resident_tiles.tiles(64, 16)

    def launch(config=config, T=4, d=64, m=16, **changed):
        tensors = {
            "x": torch.zeros(T, d),
            "w_down": torch.zeros(m, d),
            "w_up": torch.zeros(d, m),
            "y": torch.zeros(T, d),
        }
        tensors = {name: tensor.half() for name, tensor in tensors.items()} | dict.fromkeys(("residual", *SAVED))
        tensors |= changed
        resident.launch_resident(b_down=None, b_up=None, activation="gelu", scale=1.0, config=config, **tensors)

    launch()
    launch(T=0)
    half = torch.float16
    with pytest.raises(ValueError, match="form: got 'fused'"):
        launch(replace(config, form="fused"))
    with pytest.raises(ValueError, match="bottleneck 8 with BLOCK_M 16"):
        launch(m=8)
    with pytest.raises(ValueError, match="hidden size 96 with BLOCK_D 64"):
        launch(d=96)
    with pytest.raises(ValueError, match="BLOCK_T 64 with 8 warps"):
        launch(replace(config, num_warps=8))
    with pytest.raises(ValueError, match="num_stages: got 2, expected 1 to 1"):
        launch(replace(config, num_stages=2))
    with pytest.raises(ValueError, match="needs 266240 bytes of shared memory"):
        launch(d=2048)
    with pytest.raises(TypeError, match=r"x: got torch\.float32"):
        launch(x=torch.zeros(4, 64))
    with pytest.raises(TypeError, match=r"w_up: got torch\.float32, expected torch\.float16"):
        launch(w_up=torch.zeros(64, 16))
    with pytest.raises(ValueError, match=r"h: got shape \[4, 8\], expected \[4, 16\]"):
        launch(h=torch.zeros(4, 8, dtype=half))
    with pytest.raises(ValueError, match=r"y: got strides \[128, 1\], expected a dense tensor"):
        launch(y=torch.zeros(4, 128, dtype=half)[:, :64])
    with pytest.raises(ValueError, match=r"x: got strides \[68, 1\], expected \[a multiple of 8, 1\]"):
        launch(x=torch.zeros(4, 68, dtype=half)[:, :64])
    with pytest.raises(ValueError, match="x: got an address of 8 modulo 16"):
        launch(x=torch.zeros(4, 72, dtype=half)[:, 4:68])
    monkeypatch.setattr(resident.triton, "__version__", "3.7.1")
    with pytest.raises(ValueError, match=r"Triton 3\.7\.1"):
        launch()


def test_which_versions():
    assert all(resident.available(version) for version in ("3.6.0", "3.9.0", "3.9.1+git1234"))
    assert not any(resident.available(version) for version in ("3.5.1", "3.7.0", "3.8.0", "3.10.0", "3.60", "4.0.0"))


def test_tiles_fit():
    """Every choice is one that the launcher takes, and two programs share a multiprocessor up to d = 768."""
    taken = {(D, M): resident_tiles.tiles(D, M) for D in range(16, 2200, 16) for M in (8, 16, 32, 64, 128, 256)}
    for (D, M), config in taken.items():
        if config is not None:
            resident._check_config(config, D, M)
        widest = 1024 if M == 128 else 1536
        wanted = D % 32 == 0 and widest >= D and M in resident.BOTTLENECKS
        assert config is not None or not wanted, f"no tiles for D = {D}, M = {M}"
        assert config is None or D % 32 == 0
        if wanted and D <= 768:
            assert 2 * (resident.shared_bytes(config, D) + 1024) <= 228 * 1024, f"one program for D = {D}, M = {M}"
    assert taken[2048, 16] is None


COMPILE = """
import json, sys
from dataclasses import replace
from adapter_fast.benchmarks.aot import compiler
from adapter_fast.benchmarks.aot.targets import ARCHS
from adapter_fast.kernels.aot_cases import _resident
from adapter_fast.kernels.resident_tiles import tiles
from adapter_fast.kernels.shapes import Problem

D, M, dtype, residual, activation = json.loads(sys.argv[1])
cases = _resident((dtype, dtype, "ieee"), tiles(D, M), Problem(D, M, 2, 2, "ieee", "sm_90"))
[case] = [case for case in cases if case.name.startswith(f"resident {residual} h+slope")]
case = replace(case, constexprs=case.constexprs | {"ACTIVATION": activation})
compiled = compiler.compile_case(case, ARCHS["sm_90"])
found = compiler._read(compiled, ARCHS["sm_90"])
blocks = ARCHS["sm_90"].blocks(found.registers, compiled.metadata.shared, case.num_warps)
print(json.dumps([found.registers, found.spill_bytes, compiled.metadata.shared, blocks, found.tensor_ops]))
"""


@pytest.mark.parametrize("sizes, programs", [
    ((768, 64, "bf16", "x", "gelu"), 2),
    pytest.param((1024, 128, "fp16", "tensor", "gelu"), 1, marks=pytest.mark.slow),
    pytest.param((1536, 64, "bf16", "tensor", "tanh"), 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_compiles_for_hopper(sizes, programs):
    command = [sys.executable, "-c", COMPILE, json.dumps(sizes)]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    registers, spill_bytes, shared, blocks, tensor_ops = json.loads(done.stdout.splitlines()[-1])
    assert spill_bytes == 0 and registers <= 255
    assert shared == resident.shared_bytes(resident_tiles.tiles(*sizes[:2]), sizes[0]) <= 227 * 1024
    assert blocks == programs
    products = {name for name in tensor_ops if name.startswith("wgmma")}
    config = resident_tiles.tiles(*sizes[:2])
    for columns in (config.BLOCK_M, config.BLOCK_D):
        assert any(f"m64n{columns}k16" in name for name in products), f"no product of {columns} columns on wgmma"
