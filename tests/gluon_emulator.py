"""Runs a Gluon kernel's own source on the CPU, one program after the other, and raises where it could race on a GPU.

Gluon has no interpreter. Here the kernel's functions are taken out of its file and executed with stand-ins for `gl` and
for the asynchronous operations: blocks are torch tensors, pointers index the memory of the real arguments. All threads
of a program run as one, so a race never shows in the numbers; the rules are checked instead, and are stricter than the
hardware's (which thread holds which element is not modelled):

- what a copy brings is there once a wait covers its commit group; until then it holds NaN and nobody may use it;
- between a write to a buffer and any read of it, or a read and the next write, lies a barrier;
- the tensor core sees what threads wrote only after the writes, a fence and then a barrier;
- nothing a product reads may be written before the product was waited for and a barrier passed, and neither may memory
  allocated later, which may be that of a buffer no longer used; a result exists only once it was waited for;
- no load or store leaves its tensor's storage, and nothing is under way when the program ends.

Layouts are not modelled: an ahead-of-time compilation checks them.
"""

from __future__ import annotations

import ast
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class Fault(AssertionError):
    """The kernel does what is not defined on a GPU."""


@dataclass
class Pointer:
    """Elements of a tensor's storage; traffic counts the elements read and written, by (name, "read" or "written")."""

    name: str
    memory: Tensor
    offsets: Tensor
    traffic: Counter

    @property
    def dtype(self) -> SimpleNamespace:
        return SimpleNamespace(element_ty=self.memory.dtype)

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.name, self.memory, self.offsets + other, self.traffic)

    def reach(self, mask: Tensor | None, how: str) -> tuple[Tensor, Tensor]:
        """(offsets, mask), broadcast to each other; raises Fault where a wanted element lies outside."""
        mask = torch.ones_like(self.offsets, dtype=torch.bool) if mask is None else mask
        offsets, mask = torch.broadcast_tensors(self.offsets, mask)
        wanted = offsets[mask]
        if bool(((wanted < 0) | (wanted >= self.memory.numel())).any()):
            raise Fault(f"{self.name}: {how} outside of its storage")
        self.traffic[self.name, how] += wanted.numel()
        return offsets, mask

    def read(self, mask: Tensor | None) -> Tensor:
        """The elements, NaN where masked."""
        offsets, mask = self.reach(mask, "read")
        values = self.memory[torch.where(mask, offsets, 0)]
        return torch.where(mask, values, torch.nan)

    def write(self, values: Tensor, mask: Tensor | None) -> None:
        offsets, mask = self.reach(mask, "written")
        if values.dtype != self.memory.dtype or values.shape != offsets.shape:
            raise Fault(
                f"{self.name}: {values.dtype} {list(values.shape)} written to {self.memory.dtype} {list(offsets.shape)}"
            )
        self.memory[offsets[mask]] = values[mask]


@dataclass(eq=False)
class Shared:
    """A buffer in shared memory, and what is known of who used it since the last barrier."""

    data: Tensor
    landing: bool = False
    written: bool = False
    settled: bool = False  # a barrier since the last write
    fenced: bool = False  # a fence since the last write
    seen_by_tensor_core: bool = False  # a barrier since that fence
    was_read: bool = False  # since the last barrier
    products: int = 0  # under way that read it
    inherited: bool = False  # maybe the memory of a buffer no longer used that a product read, with no barrier since

    def permute(self, order: tuple[int, int]) -> Operand:
        return Operand(self, self.data.permute(order))

    def load(self, layout: Any) -> Tensor:
        self.check_readable()
        self.was_read = True
        return self.data.clone()

    def store(self, values: Tensor) -> None:
        self.check_writable(values)
        self.data.copy_(values)
        self.set_written()

    def set_written(self) -> None:
        self.landing, self.written = False, True
        self.settled = self.fenced = self.seen_by_tensor_core = False

    def check_readable(self) -> None:
        if self.landing:
            raise Fault("read of a buffer whose copy was not waited for")
        if not self.written:
            raise Fault("read of a buffer that nothing was written to")
        if not self.settled:
            raise Fault("read of a buffer with no barrier since it was written")

    def check_writable(self, values: Tensor) -> None:
        if values.dtype != self.data.dtype or values.shape != self.data.shape:
            raise Fault(f"{values.dtype} {list(values.shape)} written to {self.data.dtype} {list(self.data.shape)}")
        if self.landing:
            raise Fault("write to a buffer whose copy was not waited for")
        if self.products:
            raise Fault("write to a buffer that a product under way reads")
        if self.was_read or (self.written and not self.settled):
            raise Fault("write to a buffer with no barrier since it was last used")
        if self.inherited:
            raise Fault("write to memory that a product may still read: no barrier since it was waited for")


@dataclass
class Operand:
    """A buffer as the tensor core reads it."""

    shared: Shared
    data: Tensor

    def claim(self) -> Shared:
        self.shared.check_readable()
        if not self.shared.seen_by_tensor_core:
            raise Fault("product of a buffer with no fence between its write and the barrier")
        self.shared.products += 1
        return self.shared


@dataclass(eq=False)
class Product:
    """A matrix product under way: its result cannot be used yet."""

    result: Tensor
    reads: list[Shared]


@dataclass
class Machine:
    """One program: its shared memory, copies and products under way."""

    program: int
    num_warps: int
    buffers: list[Shared] = field(default_factory=list)
    uncommitted: list[tuple[Shared, Tensor]] = field(default_factory=list)
    groups: deque = field(default_factory=deque)
    products: deque = field(default_factory=deque)
    products_settled: bool = True  # a barrier since the last product was waited for

    def allocate(self, dtype: torch.dtype, shape: list[int], layout: Any) -> Shared:
        data = torch.full(shape, torch.nan, dtype=dtype)
        self.buffers.append(Shared(data, inherited=not self.products_settled))
        return self.buffers[-1]

    def copy_async(self, shared: Shared, pointer: Pointer, mask: Tensor | None = None) -> None:
        values = pointer.read(mask)
        shared.check_writable(values)
        shared.data.fill_(torch.nan)
        shared.landing = True
        self.uncommitted.append((shared, values))

    def commit_group(self) -> None:
        self.groups.append(self.uncommitted)
        self.uncommitted = []

    def wait_group(self, num_outstanding: int) -> None:
        while len(self.groups) > num_outstanding:
            for shared, values in self.groups.popleft():
                shared.data.copy_(values)
                shared.set_written()

    def fence(self) -> None:
        for shared in self.buffers:
            shared.fenced |= shared.written and not shared.landing

    def barrier(self) -> None:
        for shared in self.buffers:
            shared.settled |= shared.written and not shared.landing
            shared.seen_by_tensor_core |= shared.fenced
            shared.was_read = False
            shared.inherited &= bool(self.products)
        self.products_settled = not self.products

    def mma(self, a: Any, b: Operand, acc: Any, *, use_acc: bool = True, is_async: bool = False) -> Any:
        if isinstance(acc, Product):
            raise Fault("sum of a product that was not waited for")
        operands = [a if isinstance(a, Tensor) else Operand(a, a.data), b]
        reads = [operand.claim() for operand in operands if isinstance(operand, Operand)]
        left, right = (operand if isinstance(operand, Tensor) else operand.data for operand in operands)
        result = left.float() @ right.float()
        self.products.append(Product(acc + result if use_acc else result, reads))
        self.products_settled = False
        return self.products[-1] if is_async else self.wait_products(0, (self.products[-1],))

    def wait_products(self, num_outstanding: int = 0, deps: tuple = ()) -> Any:
        while len(self.products) > num_outstanding:
            for shared in self.products.popleft().reads:
                shared.products -= 1
                shared.was_read = True
        if any(dep in self.products for dep in deps if isinstance(dep, Product)):
            raise Fault("result of a product that the wait does not cover")
        results = tuple(dep.result if isinstance(dep, Product) else dep for dep in deps)
        return results[0] if len(results) == 1 else results

    def convert_layout(self, value: Tensor, layout: Any) -> Tensor:
        if not self.products_settled:  # it may go through memory of a buffer no longer used
            raise Fault(
                "change of layout through memory that a product may still read: no barrier since it was waited for"
            )
        return value

    def finish(self) -> None:
        if self.groups or self.uncommitted or self.products:
            raise Fault("the program ends with copies or products under way")


def _layout(*arguments: Any) -> str:
    return repr(arguments)


def _load(pointer: Pointer, mask: Tensor | None = None) -> Tensor:
    return pointer.read(mask)


def _store(pointer: Pointer, values: Tensor, mask: Tensor | None = None, eviction_policy: str = "") -> None:
    pointer.write(values, mask)


def _gluon(machine: Machine) -> dict[str, Any]:
    language = SimpleNamespace(
        BlockedLayout=_layout,
        DotOperandLayout=_layout,
        NVMMADistributedLayout=_layout,
        NVMMASharedLayout=SimpleNamespace(get_default_for=_layout),
        SliceLayout=_layout,
        allocate_shared_memory=machine.allocate,
        arange=lambda start, end, layout: torch.arange(start, end),
        constexpr=None,
        convert_layout=machine.convert_layout,
        float32=torch.float32,
        int64=torch.int64,
        load=_load,
        num_warps=lambda: machine.num_warps,
        program_id=lambda axis: torch.tensor(machine.program, dtype=torch.int32),
        static_range=range,
        store=_store,
        zeros=lambda shape, dtype, layout: torch.zeros(shape, dtype=dtype),
    )
    return {
        "gl": language,
        "async_copy": SimpleNamespace(commit_group=machine.commit_group, wait_group=machine.wait_group),
        "copy_async": machine.copy_async,
        "barrier": machine.barrier,
        "fence_async_shared": machine.fence,
        "warpgroup_mma": machine.mma,
        "warpgroup_mma_wait": machine.wait_products,
    }


_TRITON = {
    "tl": SimpleNamespace(
        abs=torch.abs,
        constexpr=None,
        exp=torch.exp,
        float32=torch.float32,
        math=SimpleNamespace(erf=torch.erf),
        sigmoid=torch.sigmoid,
        static_assert=lambda condition: None,
        where=torch.where,
    )
}


def device_functions(source: str, filename: str, names: dict[str, Any]) -> dict[str, Any]:
    """The decorated functions of a kernel file as plain functions that see only each other and `names`."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    for function in functions:
        function.decorator_list = []
    exec(compile(ast.Module(functions, []), filename, "exec"), names)
    return names


class EmulatedKernel:
    """Stands in for a Gluon kernel: kernel[(programs,)](argument=…, num_warps=…) runs every program.

    source, triton_source: the text of the kernel's file and of the file of Triton functions that it calls;
    traffic: elements read and written so far, by (argument, "read" or "written").
    """

    def __init__(self, source: str, name: str, triton_source: str):
        self._source, self._name, self._triton_source = source, name, triton_source
        self.traffic: Counter = Counter()
        self.__name__ = name
        (found,) = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name)
        self.arg_names = [argument.arg for argument in found.args.args]

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*, num_warps: int, **arguments: Any) -> None:
            values = {key: self._argument(key, value) for key, value in arguments.items()}
            triton_functions = device_functions(self._triton_source, "the Triton functions", dict(_TRITON))
            for program in range(grid[0]):
                machine = Machine(program, num_warps)
                names = triton_functions | _gluon(machine)
                device_functions(self._source, "the emulated kernel", names)[self._name](**values)
                machine.finish()

        return launch

    def _argument(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        memory = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
        return Pointer(name, memory, torch.tensor(value.storage_offset()), self.traffic)
