"""Every form behind the one public op: forced one by one, asked for through the variable, told by explain()."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

from adapter_fast import FusedAdapter, fused_adapter
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.kernels.offers import OPTIONAL_FORMS, VARIABLE, launcher
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import forced
from adapter_fast.testing import Case, assert_case, evaluate, grad_output, make_inputs

pytestmark = pytest.mark.usefixtures("poison")

FORMS = {
    "fused": {phase: LaunchConfig("fused", 16, 32, 16, 4, 1) for phase in ("forward", "dx", "dx_z", "dx_x")},
    "partial sums": {"forward": LaunchConfig("fused", 16, 32, 16, 4, 1, partial_sums=True)},
    "split": {phase: LaunchConfig("split", 16, 32, 16, 4, 1) for phase in ("forward", "dx", "dx_z", "dx_x", "expand")},
    "sliced": {"forward": LaunchConfig("sliced", 16, 32, 16, 4, 1, partial_sums=True)},
}


def test_the_page_of_forms_has_each_and_each_has_a_launch():
    page = (Path(__file__).parents[2] / "kernels/forms/README.md").read_text("utf-8")
    assert tuple(re.findall(r"^\| `(\w+)\.py` \|", page, re.M)) == OPTIONAL_FORMS
    assert all(callable(launcher(form)) for form in OPTIONAL_FORMS)


def rows(case, inputs, dy, some):
    """y and dx of some rows alone."""
    part = inputs | {"x": inputs["x"][some].detach().clone().requires_grad_()}
    if inputs["residual"] is not None:
        part["residual"] = inputs["residual"][some].detach().clone().requires_grad_()
    found = evaluate(fused_adapter, case, part, dy[some])
    return {name: found[name] for name in ("y", "d_x")}


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T, d, m", [(1, 8, 8), (37, 72, 16), (165, 100, 10)])
def test_error_budget_and_determinism(T, d, m, form, memory):
    case = Case(T, d, m, torch.float32, scale=0.5, residual="tensor" if T == 37 else "x")
    op = partial(fused_adapter, memory=memory)
    with forced(**FORMS[form]):
        assert_case(op, case)
        once, again = (evaluate(op, case, make_inputs(case), grad_output(case)) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in once.items())


@pytest.mark.parametrize("form", FORMS)
def test_a_row_does_not_depend_on_the_rows_around_it(form):
    case = Case(165, 72, 16, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    with forced(**FORMS[form]):
        whole = evaluate(fused_adapter, case, inputs, dy)
        for some in (slice(0, 37), slice(0, 1), slice(128, 165)):
            for name, value in rows(case, inputs, dy, some).items():
                assert torch.equal(value, whole[name][some]), f"{name} of rows {some}"


def test_few_and_many_tokens_give_the_same_bits_with_the_sliced_form(monkeypatch):
    monkeypatch.setenv(VARIABLE, "sliced")
    case = Case(300, 136, 16, torch.float16)
    inputs = make_inputs(case)
    whole = fused_adapter(**arguments(inputs))
    for T in (1, 77, 128):
        part = fused_adapter(**arguments(inputs | {"x": inputs["x"][:T]}))
        assert torch.equal(part, whole[:T]), T
    assert_case(fused_adapter, case)
    assert_case(fused_adapter, Case(100, 136, 16, torch.float16))


def arguments(inputs):
    return {name: value for name, value in inputs.items() if name != "residual"}


def test_explain_says_what_was_asked_for(monkeypatch):
    adapter = FusedAdapter(768, 64, dtype=torch.float16)
    few, many = torch.empty(4, 768, dtype=torch.float16), torch.empty(70000, 768, dtype=torch.float16)
    assert "form" not in adapter.explain(few).reason
    monkeypatch.setenv(VARIABLE, "sliced")
    assert "the sliced form, asked for" in adapter.explain(few).reason
    assert "form" not in adapter.explain(many).reason
    monkeypatch.setenv(VARIABLE, "sliced,queue")  # which was a form once
    with pytest.raises(
        ValueError, match=rf"ADAPTER_FAST_KERNELS must name forms out of {', '.join(OPTIONAL_FORMS)}, got 'queue'"
    ):
        adapter.explain(few)
