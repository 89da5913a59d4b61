"""A launch with its compile-time arguments settled: through Triton's own dispatch once, then straight to the result.

Triton binds and hashes every argument of every call, which takes longer than a small adapter runs. A Launch is made
once for all that this binding depends on (dtypes, alignment, which pointers are None, tiles, device) and keeps the
compiled kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton.language as tl

from .errors import kernel_error
from .shapes import LaunchConfig, Problem


class Branch(NamedTuple):
    """What stands around the two products: act, and the factor before the residual sum. A call's own Settings serve."""

    activation: str
    scale: float


class Launch:
    """Calls one kernel with fixed constants; the other arguments come by name, in the kernel's own order."""

    __slots__ = ("_compiled", "constants", "keep", "kernel", "options")

    def __init__(self, kernel: Any, constants: dict[str, Any], options: dict[str, Any], keep: bool) -> None:
        self.kernel, self.constants, self.options, self.keep = kernel, constants, options, keep
        self._compiled: Any = None

    def __call__(self, programs: int, **arguments: Any) -> None:
        """Launch so many programs on the current device and stream.

        Raises:
            KernelError: Triton or the driver failed, with what there is to know; torch's own running out of memory
                is passed on as it is.
        """
        try:
            if self._compiled is not None:
                self._compiled[(programs, 1, 1)](*arguments.values(), *self.constants.values())
                return
            given = [*arguments, *self.constants]
            if given != list(self.kernel.arg_names):
                raise TypeError(f"takes {', '.join(self.kernel.arg_names)}, got {', '.join(given)}")
            compiled = self.kernel[(programs,)](**arguments, **self.constants, **self.options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            settings = "".join(f"{name} {value}, " for name, value in (self.constants | self.options).items())
            raise kernel_error(f"kernel {self.kernel.__name__}", error, settings) from error
        # The interpreter returns nothing, and without alignment the next call's pointers may need another kernel.
        if self.keep and hasattr(compiled, "run"):
            self._compiled = compiled


@contextmanager
def recorded() -> Iterator[list[tuple[Launch, dict[str, Any]]]]:
    """What would be launched while the block runs, and with which arguments: nothing is."""
    made: list[tuple[Launch, dict[str, Any]]] = []
    before = Launch.__call__
    Launch.__call__ = lambda self, programs, **arguments: made.append((self, arguments))  # type: ignore[method-assign]
    try:
        yield made
    finally:
        Launch.__call__ = before  # type: ignore[method-assign]


def prepare(
    kernel: Any, config: LaunchConfig, problem: Problem, options: dict[str, Any] | None = None, **constants: Any
) -> Launch:
    """A Launch of this kernel with these tiles; constants in the kernel's order, before BLOCK_T."""
    settled = constants | {"BLOCK_T": config.BLOCK_T, "BLOCK_D": config.BLOCK_D, "BLOCK_M": config.BLOCK_M}
    tiles = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return Launch(kernel, settled, tiles | (options or {}), problem.aligned)


def dtypes(tensors: dict[str, torch.Tensor | None]) -> tuple[torch.dtype | None, ...]:
    """What the binding of a kernel's tensors depends on, besides their alignment; None for one that is not there."""
    return (*[None if tensor is None else tensor.dtype for tensor in tensors.values()],)  # faster than a generator


def acc_dtype(problem: Problem) -> tl.dtype:
    """The dtype products accumulate in: float32, float64 for float64 in the interpreter."""
    return tl.float64 if problem.x_bytes == 8 else tl.float32
