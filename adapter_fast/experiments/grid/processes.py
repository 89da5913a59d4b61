"""Several processes on one grid: helpers of our own, or those that torchrun and accelerate launch start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HELPER = "ADAPTER_FAST_HELPER"  # in a helper's environment: the process that started it
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")


def leave_launcher() -> bool:
    """Make a process of torchrun's or accelerate's one of its own with one GPU; whether it is the first, which prints.

    A grid's runs are independent: nothing is to be synchronised, so the processes share no group. Call before torch
    looks for GPUs.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    if "LOCAL_RANK" in os.environ:
        _take_gpu(int(os.environ["LOCAL_RANK"]))
    for name in [name for name in os.environ if name in LAUNCHER or name.startswith("TORCHELASTIC_")]:
        del os.environ[name]
    return first and HELPER not in os.environ


def alive() -> bool:
    """False in a helper whose starter has ended, by a kill for example."""
    return HELPER not in os.environ or os.getppid() == int(os.environ[HELPER])


@contextmanager
def helpers(count: int, arguments: Sequence[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run `count` further processes of the same command beside this one, each with its share of the cores or a GPU.

    At the end they are waited for; where this process fails, they are ended.
    """
    gpus = _gpus()
    _take_gpu(0)  # Trainer would spread one run over all that it sees
    if not count or HELPER in os.environ:
        yield []
        return
    import torch

    threads = max(1, len(os.sched_getaffinity(0)) // (count + 1))
    torch.set_num_threads(threads)
    here = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    common = {**os.environ, HELPER: str(os.getpid()), "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for i in range(1, count + 1):
            environment = {**common, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else common
            command = [sys.executable, "-m", "adapter_fast", *arguments]
            started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        yield started
        for process in started:
            process.wait()
    finally:
        for process in started:
            process.terminate()


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, or every GPU's number."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def _take_gpu(number: int) -> None:
    gpus = _gpus()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
