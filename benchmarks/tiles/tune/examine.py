"""Whether a candidate compiles, spills nothing and is right: asked of processes that may crash or hang.

A kernel that no GPU has run can take the process with it (an illegal address ends a CUDA context) or never end (a wait
that is never answered). So none is launched in the process that times before it has passed here.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from adapter_fast.benchmarks.tiles.compiled import another_form, compiled_kernels, forget_kernels
from adapter_fast.benchmarks.tiles.tune.forced import Choices, ForcedOp
from adapter_fast.common.errors import first_line
from adapter_fast.testing import Case

SECONDS = 90.0  # for one candidate: compiling all its kernels and checking them
STARTING = 300.0  # for a process to import torch, beside others that compile
READY = "ready"


@dataclass(frozen=True)
class Candidate:
    """One candidate: its tiles by phase, and the form that must be seen to run."""

    case: Case
    phase: str  # of the op: "forward" or "backward"
    memory: str
    choices: Choices
    form: str


@dataclass(frozen=True)
class Verdict:
    """error: why a candidate is refused, "" where it is not; registers and shared memory of its largest kernel."""

    error: str = ""
    registers: int = 0
    shared: int = 0


def examine(task: Candidate) -> Verdict:
    """Launch a candidate and look at its results and its kernels."""
    op = ForcedOp("candidate", task.case, task.phase, task.memory, task.choices)
    forget_kernels()
    try:
        op.check()
    except AssertionError as error:
        return Verdict(f"wrong: {first_line(error)}")
    except Exception as error:  # whatever a compiler or a launch raises
        return Verdict(f"{type(error).__name__}: {first_line(error)}")
    if task.case.device == "cpu":
        return Verdict()
    torch.cuda.synchronize()
    return judge(compiled_kernels(), task.form)


def judge(compiled: Sequence[Any], form: str) -> Verdict:
    """The verdict on what was compiled for a candidate of this form."""
    another = another_form(compiled, form)
    if another:
        return Verdict(another)
    spilled = max(one.n_spills for one in compiled)
    if spilled:
        return Verdict(f"spills {spilled} registers")
    return Verdict("", max(one.n_regs for one in compiled), max(one.metadata.shared for one in compiled))


def _serve(connection: Connection, examiner: Callable[[Candidate], Verdict]) -> None:
    connection.send(READY)
    while (task := connection.recv()) is not None:
        connection.send(examiner(task))


class Examiners:
    """Processes that answer tasks; one that dies or does not answer in time is replaced.

    Args:
        count: how many at a time. seconds: for an answer. examiner: what they run.
    """

    def __init__(
        self, count: int, seconds: float = SECONDS, examiner: Callable[[Candidate], Verdict] = examine
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._count, self._seconds, self._examiner = count, seconds, examiner
        self._idle: list[tuple[Any, Connection]] = []
        self._ready: set[Connection] = set()

    def examine(self, tasks: Sequence[Candidate]) -> list[Verdict]:
        """A verdict for each, in order."""
        verdicts: dict[int, Verdict] = {}
        waiting = list(enumerate(tasks))[::-1]
        busy: dict[Connection, tuple[Any, int, float]] = {}
        while waiting or busy:
            while waiting and len(busy) < self._count:
                self._idle = [one for one in self._idle if one[0].is_alive()]
                process, connection = self._idle.pop() if self._idle else self._start()
                index, task = waiting.pop()
                connection.send(task)
                limit = self._seconds if connection in self._ready else STARTING
                busy[connection] = (process, index, time.monotonic() + limit)
            soonest = min(deadline for _, _, deadline in busy.values())
            ready = wait(list(busy), max(0.0, soonest - time.monotonic()))
            for connection in [one for one in busy if one in ready]:
                process, index, _ = busy.pop(connection)
                try:
                    answer = connection.recv()
                    if answer == READY:  # its time begins now
                        self._ready.add(connection)
                        busy[connection] = (process, index, time.monotonic() + self._seconds)
                        continue
                    verdicts[index] = answer
                    self._idle.append((process, connection))
                except EOFError:
                    process.join()
                    verdicts[index] = Verdict(f"its process ended with code {process.exitcode}")
            for connection, (process, index, deadline) in list(busy.items()):
                if time.monotonic() > deadline:
                    process.kill()
                    process.join()
                    del busy[connection]
                    verdicts[index] = Verdict(f"no answer after {self._seconds:g} s")
        return [verdicts[index] for index in range(len(tasks))]

    def close(self) -> None:
        """End all processes."""
        for process, connection in self._idle:
            if process.is_alive():
                connection.send(None)
                process.join()
        self._idle.clear()

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._examiner), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def at_a_time(device: str) -> int:
    """As many examiners as there are cores to compile on, at most 4: each holds a CUDA context and a float64 truth."""
    return min(4, len(os.sched_getaffinity(0))) if device == "cuda" else 1
