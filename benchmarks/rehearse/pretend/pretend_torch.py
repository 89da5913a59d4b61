"""torch with a GPU that is not there: its tensors lie in the host's memory, and operations on large ones do nothing.

Every tensor says that it is on cuda:0, and a device named anywhere becomes the CPU on its way in. What PyTorch computes
on small tensors is real, so that code which looks at values finds some.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

GPUS = {  # name, under which no result passes for a measured one; multiprocessors, bytes of L2, bytes of memory
    "h100": ("Rehearsed H100 80GB HBM3", 132, 50 * 2**20, 80 * 2**30),
    "h200": ("Rehearsed H200", 132, 60 * 2**20, 141 * 2**30),
}
LARGE = 2**16  # elements from which an operation is not computed


def change(torch: Any) -> None:
    """Everything of torch that asks for a GPU, or would compute on one."""
    name, multiprocessors, l2, memory = GPUS[os.environ.get("REHEARSE_GPU", "h100")]
    device = torch.device
    here = device("cuda", 0)

    def on_host(value: Any) -> Any:
        named = isinstance(value, str) and value.split(":")[0] == "cuda"
        return device("cpu") if named or (isinstance(value, device) and value.type == "cuda") else value

    # -- tensors
    real_device = torch._C.TensorBase.device.__get__
    torch.Tensor.device = property(lambda self: here if (found := real_device(self)).type == "cpu" else found)
    torch.Tensor.is_cuda = property(lambda self: real_device(self).type == "cpu")
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.Tensor.get_device = lambda self: 0
    torch.Tensor.pin_memory = lambda self, *_: self
    torch.Tensor.record_stream = lambda self, stream: None
    torch.equal = lambda one, other: one.shape == other.shape
    torch.Tensor.equal = torch.equal
    torch.isfinite = lambda values: torch.ones((), dtype=torch.bool).expand(values.shape)
    torch.Tensor.isfinite = torch.isfinite

    def assert_close(actual: Any, expected: Any, **_: Any) -> None:
        same = getattr(actual, "shape", None) == getattr(expected, "shape", None)
        if not same or getattr(actual, "dtype", None) != getattr(expected, "dtype", None):
            raise AssertionError(f"got {actual!r:.80}, expected the shape and dtype of {expected!r:.80}")

    torch.testing.assert_close = assert_close

    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map

    class OnHost(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if "device" in kwargs:
                given = kwargs["device"]
                kwargs = {**kwargs, "device": device("cpu") if type(given) is int else on_host(given)}
            if kwargs.get("pin_memory"):
                kwargs = {**kwargs, "pin_memory": False}
            return func(*map(on_host, args), **kwargs)

    aten = torch.ops.aten
    must_run = {aten.resize_, aten.set_, aten._local_scalar_dense, aten.item, aten.all, aten.any}
    factories = {aten.randn, aten.rand, aten.randint, aten.zeros}

    def empty(like: Any, on: str) -> Any:
        whole = not (like.dtype.is_floating_point or on == "meta")  # integers may be indices: none out of range
        make = torch._C._VariableFunctions.empty_strided
        made = make(like.size(), like.stride(), dtype=like.dtype, device=on)
        return made.zero_() if whole else made

    class Idle(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if not func.is_view:
                state.ran(str(func))
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            packet = func.overloadpacket
            if not tensors and packet in factories:
                return self._made(func, args, kwargs)
            large = any(tensor.numel() >= LARGE for tensor in tensors)
            if not large or packet in must_run or func.is_view or any(map(_elsewhere, tensors)):
                return func(*args, **kwargs)
            if torch.Tag.inplace_view in func.tags:
                return func(*args, **kwargs)
            if func._schema.is_mutable:
                return _written(func, args, kwargs)
            return self._shaped(func, args, kwargs)

        def _made(self, func: Any, args: Any, kwargs: Any) -> Any:
            sizes = next((arg for arg in args if isinstance(arg, (list, tuple))), ())
            total = 1
            for size in sizes:
                total *= size
            if total < LARGE:
                return func(*args, **kwargs)
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"} | {"device": "meta"}
            args = tuple(arg for arg in args if not isinstance(arg, torch._C.Generator))
            make = {aten.randn: aten.zeros, aten.rand: aten.zeros}.get(func.overloadpacket, func)
            args = (sizes,) if make is aten.zeros else args
            return empty(make(*args, **kwargs), "cpu")

        def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
            def away(value: Any) -> Any:
                if isinstance(value, torch.Tensor):
                    return empty(value, "meta")
                return device("meta") if isinstance(value, device) else value

            given = {key: value for key, value in kwargs.items() if not isinstance(value, torch._C.Generator)}
            try:
                found = func(*tree_map(away, args), **tree_map(away, given))
            except (NotImplementedError, RuntimeError):  # its shape depends on values
                return func(*args, **kwargs)
            return tree_map(lambda value: empty(value, "cpu") if isinstance(value, torch.Tensor) else value, found)

    def _elsewhere(tensor: Any) -> bool:
        return real_device(tensor).type != "cpu" or tensor.layout is not torch.strided

    def _written(func: Any, args: Any, kwargs: Any) -> Any:
        if not func._schema.returns:
            return None
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args)) | kwargs
        wrote = [argument.name for argument in func._schema.arguments if (a := argument.alias_info) and a.is_write]
        found = tuple(given[name] for name in wrote)
        if len(func._schema.returns) != len(found):
            return func(*args, **kwargs)
        return found[0] if len(found) == 1 else found

    modes = (OnHost, Idle)
    stack = [mode().__enter__() for mode in modes]
    bootstrap = threading.Thread.run

    def run(self: threading.Thread) -> None:
        with contextlib.ExitStack() as entered:
            for mode in modes:
                entered.enter_context(mode())
            bootstrap(self)

    threading.Thread.run = run  # type: ignore[method-assign]
    torch._rehearsal_modes = stack

    class Generator(torch._C.Generator):
        def __new__(cls, where: Any = "cpu", **options: Any) -> Any:
            return super().__new__(cls, "cpu")

    torch.Generator = Generator

    # -- the GPU
    numbers = itertools.count(0)

    class Event:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.at = 0.0

        def record(self, stream: Any = None) -> None:
            self.at = time.perf_counter()

        def elapsed_time(self, other: Any) -> float:
            return max(1e-3, (other.at - self.at) * 1e3)

        def query(self) -> bool:
            return True

        def synchronize(self, *_: Any) -> None:
            pass

        wait = synchronize

    class Stream:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.cuda_stream = next(numbers)

        def __enter__(self) -> Any:
            self.before, state.stream = state.stream, self
            return self

        def __exit__(self, *_: Any) -> None:
            state.stream = self.before

        def record_event(self, event: Any = None) -> Any:
            return event or Event()

        def synchronize(self, *_: Any) -> None:
            pass

        wait_stream = wait_event = synchronize

    state = SimpleNamespace(stream=Stream(), capturing=False, ran=lambda name: None)

    class CUDAGraph:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def replay(self) -> None:
            time.sleep(2e-5)

        def capture_begin(self, *_: Any, **__: Any) -> None:
            state.capturing = True

        def capture_end(self) -> None:
            state.capturing = False

        def reset(self) -> None:
            pass

        def pool(self) -> tuple[int, int]:
            return (0, 0)

    @contextlib.contextmanager
    def graph(into: Any, pool: Any = None, stream: Any = None, capture_error_mode: str = "global") -> Any:
        with stream or contextlib.nullcontext():
            into.capture_begin()
            try:
                yield
            finally:
                into.capture_end()

    profile = torch.profiler.profile
    cuda_activity = torch.profiler.ProfilerActivity.CUDA

    class Profile:
        """What a profiler of the GPU alone sees: an event a launch, Triton's and those of PyTorch's operations."""

        def __new__(cls, *args: Any, activities: Any = None, **kwargs: Any) -> Any:
            if list(activities or ()) != [cuda_activity]:
                rest = [one for one in activities if one != cuda_activity] if activities else None
                return profile(*args, activities=rest, **kwargs)
            return super().__new__(cls)

        def __init__(self, *_: Any, **__: Any) -> None:
            self.names: list[str] = []

        def __enter__(self) -> Any:
            import triton

            state.ran = self.names.append
            triton.knobs.runtime.launch_enter_hook.add(self._launched)
            return self

        def __exit__(self, *_: Any) -> None:
            import triton

            state.ran = lambda name: None
            triton.knobs.runtime.launch_enter_hook.remove(self._launched)

        def _launched(self, metadata: Any) -> None:
            self.names.append(metadata.get()["name"])

        def events(self) -> list[Any]:
            kind = torch.autograd.DeviceType.CUDA
            return [SimpleNamespace(name=name, device_type=kind, device_time_total=1.0) for name in self.names]

    torch.profiler.profile = Profile

    properties = SimpleNamespace(
        name=name, major=9, minor=0, multi_processor_count=multiprocessors, L2_cache_size=l2, total_memory=memory,
        uuid="00000000-0000-0000-0000-000000000000", gcnArchName="", warp_size=32, regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048, shared_memory_per_block_optin=232448,
        shared_memory_per_multiprocessor=233472,
    )  # fmt: skip

    def constantly(value: Any) -> Any:  # a function of its own each time: dynamo tells them apart by identity
        return lambda *_, **__: value

    nothing = (
        "init", "_lazy_init", "set_device", "synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed",
        "manual_seed_all", "set_rng_state", "set_rng_state_all",
    )  # fmt: skip
    constants = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True,
        "get_device_properties": properties, "get_device_capability": (9, 0), "get_device_name": name,
        "memory_allocated": 0, "max_memory_allocated": 1000, "memory_reserved": 0, "max_memory_reserved": 1000,
        "memory_stats": {}, "mem_get_info": (memory - 2**30, memory),
        "cudart": SimpleNamespace(cudaProfilerStart=lambda: 0, cudaProfilerStop=lambda: 0),
    }  # fmt: skip
    changed = {key: constantly(None) for key in nothing} | {key: constantly(one) for key, one in constants.items()}
    changed |= {
        "current_stream": lambda *_: state.stream, "default_stream": lambda *_: state.stream,
        "stream": lambda given: given or contextlib.nullcontext(), "device": lambda _: contextlib.nullcontext(),
        "is_current_stream_capturing": lambda: state.capturing, "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "Event": Event, "Stream": Stream, "CUDAGraph": CUDAGraph, "graph": graph,
    }  # fmt: skip
    for key, value in changed.items():
        setattr(torch.cuda, key, value)
    torch._C._cuda_getCurrentRawStream = lambda index: state.stream.cuda_stream

    # -- autocast and the compiler
    autocast, enabled, dtype_of = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

    class Autocast(autocast):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    torch.autocast = torch.amp.autocast = Autocast
    torch.is_autocast_enabled = lambda kind="cuda": enabled("cpu" if kind == "cuda" else kind)
    torch.get_autocast_dtype = lambda kind: dtype_of("cpu" if kind == "cuda" else kind)
    torch.compile = _compile
    torch.compiler.cudagraph_mark_step_begin = constantly(None)


def _compile(model: Any = None, **options: Any) -> Any:
    """The model as it is, where torch.compile knows the options."""
    import torch

    unknown = set(options) - {"fullgraph", "dynamic", "backend", "mode", "options", "disable"}
    if unknown:
        raise TypeError(f"torch.compile takes no {', '.join(sorted(unknown))}")
    if options.get("options"):
        known = torch._inductor.config.get_config_copy()
        for key in options["options"]:
            if key.replace("-", "_") not in known:
                raise RuntimeError(f"Unexpected optimization option {key}")
    if options.get("mode"):
        torch._inductor.list_mode_options(options["mode"])
    return model if model is not None else lambda function: function
