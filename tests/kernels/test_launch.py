"""Between a call and the driver: Triton's dispatch once for a plan, then the compiled kernel directly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1] / "helpers"


def run(body, tmp_path):
    """Run in a process of its own: in this one the kernels belong to the interpreter."""
    code = f"import sys; sys.path.insert(0, {str(HELPERS)!r})\n"
    code += f"from fake_gpu import *\nfrom adapter_fast import *\n{body}"
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "ADAPTER_FAST_KERNELS")}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_a_repeated_call_launches_what_the_first_did_without_tritons_dispatch(tmp_path):
    run(
        """
import triton
from triton.runtime.jit import JITFunction

dispatched = []
through = JITFunction.run
def counted(self, *args, **kwargs):
    dispatched.append(self.__name__)
    return through(self, *args, **kwargs)
JITFunction.run = counted

def step(arguments, **settings):
    y = fused_adapter(**arguments, **settings)
    torch.autograd.grad(y, list(arguments.values()), torch.ones_like(y))

def told(launch):
    name, programs, arguments = launch
    return name, programs, [(a.shape, a.dtype) if isinstance(a, torch.Tensor) else a for a in arguments]

with fake_gpu() as launches:
    for memory in ("speed", "balanced", "lean"):
        arguments = example(T=200)
        launches.clear()
        dispatched.clear()
        step(arguments, memory=memory)
        first = list(launches)
        names = [name.removeprefix("bottleneck_") for name, _, _ in first]
        assert names == ["forward_kernel", "dx_kernel", "weight_grad_kernel", "reduce_kernel"], names
        launches.clear()
        seen = len(dispatched)
        step(arguments, memory=memory)
        assert len(dispatched) == seen, dispatched
        assert [told(launch) for launch in launches] == [told(launch) for launch in first]
        for launch in launches:
            assert launch[2][0].data_ptr() % 16 == 0
        # Another number of tokens of the same bucket is another grid, and another x is another pointer.
        launches.clear()
        other = example(T=300)
        step(other, memory=memory)
        assert len(dispatched) == seen, dispatched
        assert launches[0][1] > first[0][1] and launches[0][2][0] is other["x"]
""",
        tmp_path,
    )


def test_what_the_binding_depends_on_gets_a_launch_of_its_own(tmp_path):
    run(
        """
with fake_gpu() as launches, torch.no_grad():
    def kernels(**changes):
        launches.clear()
        given = example(T=130) | changes
        fused_adapter(**given)
        return launches[0]

    plain = kernels()
    names = [a for a in plain[2] if isinstance(a, str)]
    # A row that starts off 16 bytes: element by element, and not with the kernel that was compiled for aligned ones.
    shifted = torch.empty(130 * 768 + 1, dtype=torch.bfloat16)[1:].view(130, 768)
    off = kernels(x=shifted)
    assert off[2][0].data_ptr() == shifted.data_ptr()
    unit = lambda launch: launch[2][-6]  # of the strides; then those of d and of m
    assert (unit(plain), unit(off)) == (8, 1), (plain[2][-8:], off[2][-8:])
    assert unit(kernels()) == 8
    # A bias that is off is copied to where it is not.
    bias = torch.empty(769, dtype=torch.bfloat16)[1:]
    assert unit(kernels(b_up=bias)) == 8
    assert kernels(b_up=None)[2][4] is None
    assert kernels()[2][4] is not None
    # m = 8 of the paper keeps 16-byte rows.
    small = example(T=130, m=8)
    launches.clear()
    fused_adapter(**small)
    assert unit(launches[0]) == 8
    # m = 12 makes the rows of W_up, h and slope ragged, and never those of x.
    ragged = example(T=130, m=12)
    launches.clear()
    fused_adapter(**ragged)
    assert launches[0][2][-6:-3] == (8, 64, 1), launches[0][2][-6:]
    assert unit(kernels(**{k: v.half() for k, v in example(T=130).items()})) == 8
""",
        tmp_path,
    )


@pytest.mark.slow
def test_the_direct_way_takes_less_of_the_hosts_time(tmp_path):
    """A third less than Triton's dispatch, on whatever machine: the least of many tries."""
    out = run(
        """
import time
from adapter_fast.kernels.launch import Launch

def least(call):
    times = []
    for _ in range(300):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e6

with fake_gpu() as launches, torch.no_grad():
    arguments = example()
    call = lambda: (launches.clear(), fused_adapter(**arguments))
    direct = least(call)
    keep = Launch.__call__
    def dispatched(self, programs, **arguments):
        self.kernel[(programs,)](**arguments, **self.constants, **self.options)
    Launch.__call__ = dispatched
    through = least(call)
    print(direct, through)
""",
        tmp_path,
    )
    direct, through = map(float, out.split())
    assert direct * 1.5 < through, f"direct {direct:.1f} µs, through Triton's dispatch {through:.1f} µs"
