"""Launches under Triton's interpreter whose programs run at the same time: a process each, over shared memory.

The interpreter runs programs one after another, so that one that waits for a later one never returns. Its atomics are
the processor's own, so that programs in processes of their own may wait for each other as they do on a GPU.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from triton.runtime import interpreter


@contextmanager
def together(seconds: float = 60.0) -> Iterator[None]:
    """Every launch in the block runs all its programs at once; its tensors move to shared memory.

    Raises:
        AssertionError: a program failed, or had not returned after so many seconds.
    """
    run = interpreter.InterpretedFunction.run
    set_index, set_programs = interpreter.interpreter_builder.set_grid_idx, interpreter.interpreter_builder.set_grid_dim

    def one(kernel: Any, index: int, programs: int, arguments: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        interpreter.interpreter_builder.set_grid_idx = lambda x, y, z: set_index(index, y, z)
        interpreter.interpreter_builder.set_grid_dim = lambda x, y, z: set_programs(programs, y, z)
        # The interpreter copies its arguments back: onto themselves here, over what others write meanwhile.
        interpreter.GridExecutor._restore_args_dev = lambda *_: None
        run(kernel, grid=(1,), warmup=False, **arguments)

    def all_at_once(kernel: Any, *, grid: tuple[int, ...], warmup: bool, **arguments: Any) -> None:
        for value in arguments.values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()
        context = multiprocessing.get_context("fork")
        programs = [context.Process(target=one, args=(kernel, i, grid[0], arguments)) for i in range(grid[0])]
        for program in programs:
            program.start()
        for program in programs:
            program.join(seconds)
        codes = [program.exitcode for program in programs]
        for program in programs:
            program.kill()
            program.join()
        assert codes == [0] * len(codes), f"exit codes of the programs (None: it waits for ever): {codes}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "run", all_at_once)
        yield
