"""What the tests for a GPU launch is what benchmarks/tiles/precompile.py compiles before there is one."""

import pytest

pytest.importorskip("triton")

import test_gpu
import test_gpu_forms

from adapter_fast.benchmarks.tiles import precompile


def parameters(test):
    """What a test is parametrised with, by name."""
    return {mark.args[0]: mark.args[1] for mark in test.pytestmark if mark.name == "parametrize"}


def test_the_shapes_are_those_of_the_tests():
    of_16, of_32 = parameters(test_gpu.test_error_budget_16_bit), parameters(test_gpu.test_error_budget_32_bit)
    assert (tuple(of_16["T, d"]), tuple(of_16["m"])) == precompile.TESTED
    assert (tuple(of_32["T, d"]), tuple(of_32["m"])) == precompile.TESTED_32
    assert precompile.BF16 in of_16["dtype"] and precompile.FP16 in of_16["dtype"]
    of_form = parameters(test_gpu_forms.test_the_sliced_form_in_every_memory_mode)
    asked = list(precompile.campaign(precompile.Gpu(), "first"))
    called = {(one.case.T, one.memory, one.form) for one in asked if one.form and one.case.residual == "tensor"}
    assert called == {(T, memory, "sliced") for T in of_form["T"] for memory in of_form["memory"]}
    whole = parameters(test_gpu.test_every_form)
    of_every = {(one.case.activation, one.case.residual, one.case.bias) for one in asked if one.case.T == 333}
    assert of_every == {(a, r, b) for a in whole["activation"] for r in whole["residual"] for b in whole["bias"]}
