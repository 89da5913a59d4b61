"""Where tests run: the CPU under Triton's interpreter, or with `-m gpu` the GPU with compiled kernels, never both."""

from __future__ import annotations

import gc
import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core already: before torch reads it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def _on_gpu(config: pytest.Config) -> bool:
    return config.option.markexpr.strip() == "gpu" and torch.cuda.is_available()


def pytest_configure(config: pytest.Config) -> None:
    if _on_gpu(config):
        os.environ.pop("TRITON_INTERPRET", None)
    else:
        os.environ["TRITON_INTERPRET"] = "1"
        # Read when a kernel is decorated, Triton's own (tl.sum, tl.cdiv) included: import all before a test changes it.
        from adapter_fast.kernels import backward  # noqa: F401


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _on_gpu(config):
        return
    reason = "needs a CUDA GPU, and compiled kernels: run `make gpu-check` on a machine with one"
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    gc.freeze()  # libraries and test modules stay: without them a collection takes a tenth of the time


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def healthy_gpu(request: pytest.FixtureRequest):
    """After a fault on the GPU nothing of this process can be trusted: it ends, and pytest-xdist starts another."""
    yield
    if _on_gpu(request.config):
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"{request.node.nodeid}: {error}", file=sys.stderr, flush=True)
            os._exit(1)


@pytest.fixture(autouse=True)
def environment_as_before():
    """A test that leaves another backend behind would have the next ones test something else."""
    before = _environment()
    yield
    assert _environment() == before, "the test left the environment changed"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("TRITON_INTERPRET", "ADAPTER_FAST"))}


@pytest.fixture(params=["triton-interpreter", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend that a CPU has, in turn."""
    monkeypatch.setenv("TRITON_INTERPRET", "1" if request.param == "triton-interpreter" else "0")
    return request.param


@pytest.fixture
def poison():
    """Uninitialised memory holds NaN for the test."""
    from adapter_fast.testing import poisoned

    with poisoned():
        yield
