"""Saves of several processes into one directory, read meanwhile and killed: whole, and nothing left over."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import build, enlarge
from torch import nn

from adapter_fast.checkpoint import load_adapters, save_adapters
from adapter_fast.checkpoint.record.collect import collect
from adapter_fast.common import directories
from adapter_fast.config import AdapterConfig
from adapter_fast.placement import add_adapters, remove_adapters


def made(seed: int) -> nn.Module:
    return enlarge(add_adapters(build(), AdapterConfig(4)), "default", seed)


def values(model: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in collect(model, "default").tensors.values())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_adapters(made(1), tmp_path / "adapter")
    return tmp_path / "adapter"


def forked(work: Callable[[], None], failed: Path) -> int:
    """A process that does it, and writes to `failed` what it raised."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        work()
    except BaseException as error:
        failed.write_text(f"{type(error).__name__}: {error}")
    os._exit(0)


def test_a_deleted_adapter_stays_deleted(saved: Path) -> None:
    shutil.copytree(saved, saved.with_name(".adapter.previous"))  # as a kill behind the second rename leaves it
    shutil.rmtree(saved)
    with pytest.raises(FileNotFoundError):
        load_adapters(build(), saved)
    save_adapters(made(2), saved)
    assert os.listdir(saved.parent) == ["adapter"]
    assert values(load_adapters(build(), saved)) == values(made(2))


@pytest.mark.parametrize("count", [pytest.param(60, id="some"), pytest.param(1000, id="many", marks=pytest.mark.slow)])
def test_two_savers_and_a_reader(count: int, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    errors = tmp_path_factory.mktemp("errors")
    models = [made(seed) for seed in (1, 2)]
    known = [values(model) for model in models]

    def save(model: nn.Module) -> None:
        for _ in range(count):
            save_adapters(model, saved)

    def read() -> None:
        model = build()
        for _ in range(count):
            if values(load_adapters(model, saved)) not in known:
                raise RuntimeError("an adapter that nobody saved")
            remove_adapters(model)

    works = [lambda: save(models[0]), lambda: save(models[1]), read]
    pids = [forked(work, errors / str(number)) for number, work in enumerate(works)]
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert {path.name: path.read_text() for path in errors.iterdir()} == {}
    assert os.listdir(saved.parent) == ["adapter"]


@pytest.mark.parametrize("count", [pytest.param(15, id="some"), pytest.param(120, id="many", marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_leave_nothing(
    count: int, saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    failed = tmp_path_factory.mktemp("errors") / "saver"
    models, chance, model = [made(seed) for seed in (1, 2)], random.Random(count), build()
    known = [values(each) for each in models]

    def save() -> None:
        while True:
            for each in models:
                save_adapters(each, saved)

    for _ in range(count):
        pid = forked(save, failed)
        time.sleep(chance.uniform(0.01, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert not failed.exists(), failed.read_text()
        assert values(load_adapters(model, saved)) in known
        remove_adapters(model)
        if chance.random() < 0.5:
            save_adapters(models[0], saved)
            assert os.listdir(saved.parent) == ["adapter"]


def test_a_lock_that_is_held_is_one_line(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "WAIT", 0.05)
    handle = os.open(saved.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(OSError, match=r"adapter cannot be written: another save in .* has held its lock for 0 s"):
            save_adapters(made(2), saved)
        assert values(load_adapters(build(), saved)) == values(made(1))
    finally:
        os.close(handle)
    save_adapters(made(2), saved)


def test_a_file_system_without_locks_does_without(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    save_adapters(made(2), saved)
    assert values(load_adapters(build(), saved)) == values(made(2))
