"""The suites through pytest-benchmark: `pytest benchmarks/ --benchmark-only`.

Each case of a suite (suites.py) becomes a test per phase and provider of the suite's function in bench_suites.py. With
--benchmark-disable each runs once, on small cases. A provider is checked against the error budget before it is timed;
one that cannot run is skipped with its reason. pytest-benchmark is given the microseconds that the suite's own sampler
measured (device events on a GPU, the worker's clock for AdapterHub) through a clock that those samples move, so that a
launch is never taken for its work. Providers are timed one after the other here: for the interleaved
comparison use `adapter-fast bench`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.benchmarks.suites import Bench, benches
from adapter_fast.measure.clock import Sampler
from adapter_fast.measure.machine import pin_threads

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class MeasuredClock:
    """A clock, in seconds, that only samples move."""

    seconds: float = 0.0

    def now(self) -> float:
        """What pytest-benchmark reads."""
        return self.seconds

    def run(self, sampler: Sampler) -> None:
        """Take a sample and move on by what it measured."""
        self.seconds += sampler() / 1e6


CLOCK = MeasuredClock()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=CLOCK.now))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    pin_threads()
    quick = metafunc.config.getoption("benchmark_disable")
    suite = metafunc.function.__name__.removeprefix("bench_")
    todo = [(bench, name) for bench in benches(suite, DEVICE, quick=quick) for name in bench.contenders]
    ids = [f"{bench.case}-{bench.phase}-{name}" for bench, name in todo]
    metafunc.parametrize(("bench", "provider"), todo, ids=ids)


@pytest.fixture
def measure(benchmark, bench: Bench, provider: str) -> Callable[[], None]:
    """Check the provider, then time it and weigh it."""

    def run() -> None:
        try:
            contender = bench.contenders[provider]()
            contender.warm()
        except Unavailable as error:
            pytest.skip(str(error))
        try:
            contender.check()
            sampler = contender.sampler("eager")
            assert sampler is not None
            benchmark.group = f"{bench.suite}: {bench.case}, {bench.phase}"
            benchmark.pedantic(CLOCK.run, args=(sampler,), rounds=max(5, bench.rounds), warmup_rounds=1)
            figures = {"peak_bytes": contender.peak(), "parameters": contender.parameters, "note": contender.note}
            benchmark.extra_info.update(provenance(DEVICE), **figures)
        finally:
            contender.close()

    return run
