"""The op through pytest-benchmark: `pytest benchmarks --benchmark-only`; as a smoke test with `--benchmark-disable`.

pytest-benchmark reads the host's clock, so on a GPU each call ends in a synchronisation. For device times and CUDA
graphs use `python -m benchmarks.op`.
"""

import pytest
import torch

from benchmarks.cases import op_cases
from benchmarks.check import assert_correct
from benchmarks.provenance import provenance
from benchmarks.providers import PHASES, phase_function
from benchmarks.roofline import minimal_bytes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = op_cases(DEVICE, quick=False)[:3]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("provider", ["fused", "reference"])
def bench_op(benchmark, provider, phase, case):
    inputs = case.make(DEVICE)
    function = phase_function(provider, case, phase)
    output = function(inputs) if phase == "forward" else function(inputs, keep_y=True)
    assert_correct(provider, case, output, inputs)

    def call():
        function(inputs)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"{case.name} {phase}"
    benchmark.extra_info.update(provenance(DEVICE), minimal_bytes=minimal_bytes(case, phase))
    benchmark.pedantic(call, rounds=10, warmup_rounds=2)
