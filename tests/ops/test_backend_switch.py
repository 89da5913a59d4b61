"""The way out: ADAPTER_FAST_BACKEND, and the one error that names it when a kernel fails."""

import os
import subprocess
import sys

import pytest
import torch
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from adapter_fast import FusedAdapter, checks, fused_adapter
from adapter_fast.checks import BACKEND_VARIABLE, select_backend
from adapter_fast.kernels import expand, forward, reduce
from adapter_fast.kernels import launch as plan
from adapter_fast.kernels.errors import KernelError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def adapter():
    return FusedAdapter(24, 8, init_std=0.5)


@pytest.fixture
def interpreted(monkeypatch):
    """The launches made, under the interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    made, call = [], plan.Launch.__call__

    def counted(self, programs, **arguments):
        made.append(self.kernel.__name__)
        call(self, programs, **arguments)

    monkeypatch.setattr(plan.Launch, "__call__", counted)
    return made


@pytest.mark.parametrize("compiled", [False, True])
def test_torch_in_place_of_kernels_that_could_run(monkeypatch, interpreted, compiled):
    module, x = adapter(), torch.randn(5, 24, requires_grad=True)
    torch._dynamo.reset()
    run = torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module
    monkeypatch.setenv(BACKEND_VARIABLE, "torch")
    told = module.explain(x)
    assert told == ("torch", "ADAPTER_FAST_BACKEND=torch asks for PyTorch operations")
    run(x).sum().backward()
    assert not interpreted and x.grad is not None
    monkeypatch.delenv(BACKEND_VARIABLE)
    assert module.explain(x).name == "triton-interpreter"
    torch._dynamo.reset()
    run(x).sum().backward()
    assert set(interpreted) >= {"bottleneck_forward_kernel", "bottleneck_dx_kernel", "reduce_kernel"}


@pytest.mark.parametrize("compiled", [False, True])
def test_triton_where_it_runs(monkeypatch, interpreted, compiled):
    monkeypatch.setenv(BACKEND_VARIABLE, "triton")
    module, x = adapter(), torch.randn(5, 24)
    torch._dynamo.reset()
    (torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module)(x)
    assert interpreted == ["bottleneck_forward_kernel"]
    name, reason = module.explain(x).name, module.explain(x).reason
    assert name == "triton-interpreter" and "ADAPTER_FAST_BACKEND=triton asks for it" in reason


@pytest.mark.parametrize("value", ["Torch", "cuda", "1", " "])
def test_another_value_is_refused(monkeypatch, value):
    monkeypatch.setenv(BACKEND_VARIABLE, value)
    for call in (lambda: adapter()(torch.randn(2, 24)), lambda: adapter().explain(torch.randn(2, 24))):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == f"ADAPTER_FAST_BACKEND must be torch or triton, or not be set, got {value!r}"


def test_triton_where_it_cannot_run_is_refused(monkeypatch):
    monkeypatch.setenv(BACKEND_VARIABLE, "triton")
    refused = [
        (GPU, torch.float64, "float64 runs on PyTorch's own"),
        (CPU, torch.bfloat16, "computes bfloat16 wrongly"),
    ]
    refused += [(torch.device("meta"), torch.float32, "no kernels for a meta device")]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for device, dtype, why in refused:
        with pytest.raises(RuntimeError, match=f"ADAPTER_FAST_BACKEND=triton asks for kernels .*{why}") as caught:
            select_backend(device, dtype)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(checks, "_cuda_support", lambda index: "the kernels need compute capability 8.0 or newer")
    with pytest.raises(RuntimeError, match="cannot run here: the kernels need compute capability"):
        select_backend(GPU, torch.float16)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="Triton has no kernels for a cpu device"):
        adapter()(torch.randn(2, 24))


def test_the_compiler_is_told_of_a_wrong_value(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setenv(BACKEND_VARIABLE, "cuda")
    with pytest.raises(Exception, match="ADAPTER_FAST_BACKEND must be torch or triton"):
        torch.compile(adapter(), fullgraph=True, backend="aot_eager")(torch.randn(2, 24))


def test_the_doctor_says_what_cannot_be(monkeypatch):
    from adapter_fast import doctor

    monkeypatch.setenv(BACKEND_VARIABLE, "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    name, reason = doctor._backend("cpu", torch.float32)
    assert name == "none" and "asks for kernels that cannot run here" in reason


FAULTS = {
    "compiler": (CompilationError("x = 1\ny = 2", None, "cannot convert x"), "CompilationError: cannot convert x"),
    "resources": (OutOfResources(300000, 232448, "shared memory"), "OutOfResources: out of resource: shared memory"),
    "assembler": (PTXASError("Internal error\nRepro command: ptxas"), r"PTXASError: Internal error \("),
    "driver": (RuntimeError("Triton Error [CUDA]: illegal address"), r"RuntimeError: Triton Error \[CUDA\]: illegal"),
    "silence": (ValueError(), r"ValueError:  \("),
}


def failing(monkeypatch, kernel, error):
    """Let one kernel's launches raise, as Triton's dispatch does; its kept launches go through the same place."""

    def fail(self, grid):
        if self is kernel:
            raise error
        return before(self, grid)

    before = type(kernel).__getitem__
    monkeypatch.setattr(type(kernel), "__getitem__", fail)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_kernel_names_the_way_out(monkeypatch, interpreted, fault):
    error, said = FAULTS[fault]
    module, x = adapter(), torch.randn(5, 24)
    failing(monkeypatch, forward.bottleneck_forward_kernel, error)
    with pytest.raises(KernelError, match=f"^kernel bottleneck_forward_kernel failed: {said}") as caught:
        module(x)
    text = str(caught.value)
    assert caught.value.__cause__ is error and isinstance(caught.value, RuntimeError) and "\n" not in text
    for part in ("BLOCK_T 64", "num_warps 4", f"torch {torch.__version__}, Triton 3", "no GPU", "issues"):
        assert part in text, text
    assert "ADAPTER_FAST_BACKEND=torch" in text
    monkeypatch.setenv(BACKEND_VARIABLE, "torch")
    module(x)


@pytest.mark.parametrize("kernel", [reduce.reduce_kernel, expand.expand_kernel], ids=lambda kernel: kernel.__name__)
def test_a_failed_kernel_of_the_backward(monkeypatch, interpreted, kernel):
    module = FusedAdapter(24, 512, init_std=0.5)
    x = torch.randn(5, 24, requires_grad=True)
    y = module(x)
    failing(monkeypatch, kernel, RuntimeError("Triton Error"))
    with pytest.raises(KernelError, match=f"kernel {kernel.__name__} failed: RuntimeError: Triton Error"):
        y.sum().backward()


def test_a_kept_launch_that_fails():
    def gone(*arguments):
        raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")

    kept = plan.Launch(forward.bottleneck_forward_kernel, {"BLOCK_T": 64}, {"num_warps": 4}, True)
    kept._compiled = {(3, 1, 1): gone}
    with pytest.raises(KernelError, match="illegal memory access"):
        kept(3, x_ptr=None)


def test_running_out_of_memory_and_being_interrupted_pass_through(monkeypatch, interpreted):
    for error in (torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            failing(patch, forward.bottleneck_forward_kernel, error)
            with pytest.raises(type(error)) as caught:
                fused_adapter(torch.randn(2, 8), torch.randn(4, 8), None, torch.randn(8, 4), None)
            assert caught.value is error


def test_kernels_that_cannot_be_imported():
    """A Triton that is installed and does not load: find_spec sees it, the import fails."""
    program = """
import sys, torch, adapter_fast
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "triton.language":
            raise ImportError("libcuda.so.1: no such file")
sys.meta_path.insert(0, Broken())
x = torch.randn(2, 24)
try:
    adapter_fast.FusedAdapter(24, 8)(x)
except RuntimeError as error:
    print(type(error).__name__, error)
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("KernelError import of adapter_fast.kernels."), done.stdout
    assert "libcuda.so.1: no such file" in done.stdout and "ADAPTER_FAST_BACKEND=torch" in done.stdout
