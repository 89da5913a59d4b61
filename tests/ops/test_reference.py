"""The oracle against explicit loops over Python floats, and its own derivatives."""

import ast
import math
from pathlib import Path

import pytest
import torch

from adapter_fast import reference_adapter
from adapter_fast.checks import ACTIVATIONS
from adapter_fast.ops import eager
from adapter_fast.testing import INPUTS, Case, call, make_inputs

SCALAR = {
    "gelu": lambda z: 0.5 * z * (1 + math.erf(z / math.sqrt(2))),
    "gelu_tanh": lambda z: 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "relu": lambda z: max(z, 0.0),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "identity": lambda z: z,
}


def by_loops(case, inputs):
    x, w_down, b_down, w_up, b_up, residual = (
        None if inputs[name] is None else inputs[name].tolist() for name in INPUTS
    )
    act = SCALAR[case.activation]
    out = []
    for t in range(case.T):
        h = []
        for j in range(case.m):
            z = sum(x[t][i] * w_down[j][i] for i in range(case.d)) + (b_down[j] if b_down else 0.0)
            h.append(act(z))
        row = []
        for i in range(case.d):
            u = sum(h[j] * w_up[i][j] for j in range(case.m)) + (b_up[i] if b_up else 0.0)
            added = {"x": x, "tensor": residual, "none": None}[case.residual]
            row.append((added[t][i] if added else 0.0) + case.scale * u)
        out.append(row)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("activation", SCALAR)
def test_equals_explicit_loops(activation, residual, bias):
    case = Case(5, 7, 3, torch.float64, activation=activation, residual=residual, bias=bias, scale=0.7)
    inputs = make_inputs(case)
    torch.testing.assert_close(call(reference_adapter, case, inputs), by_loops(case, inputs), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_and_second_derivatives(activation, residual):
    case = Case(3, 5, 2, torch.float64, activation=activation, residual=residual, scale=0.7)
    inputs = make_inputs(case)
    names = [name for name in INPUTS if inputs[name] is not None]

    def f(*tensors):
        return call(reference_adapter, case, {**inputs, **dict(zip(names, tensors))})

    leaves = tuple(inputs[name] for name in names)
    assert torch.autograd.gradcheck(f, leaves)
    assert torch.autograd.gradgradcheck(f, leaves)


def test_the_test_inputs_change_x_visibly():
    case = Case(256, 64, 16, torch.float64)
    inputs = make_inputs(case)
    delta = call(reference_adapter, case, inputs) - inputs["x"]
    assert 0.3 < (delta.pow(2).mean().sqrt() / inputs["x"].pow(2).mean().sqrt()).item() < 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype_of_x_whatever_the_weights(dtype):
    case = Case(4, 8, 3, dtype, weight_dtype=torch.float32)
    inputs = make_inputs(case)
    y = call(reference_adapter, case, inputs)
    y.sum().backward()
    assert y.dtype == dtype
    assert {inputs[name].grad.dtype for name in INPUTS[1:5]} == {torch.float32}


def test_autocast_gives_the_dtype_of_a_linear_layer():
    case = Case(4, 8, 3, torch.float32, residual="tensor")
    inputs = make_inputs(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = torch.nn.functional.linear(inputs["x"], inputs["w_down"]).dtype
        assert call(reference_adapter, case, inputs).dtype == expected == torch.bfloat16


@pytest.mark.parametrize("dispatcher", ["activate", "activation_slope"])
def test_kernels_and_pytorch_operations_have_the_oracles_activations(dispatcher):
    tree = ast.parse((Path(__file__).parents[2] / "kernels/activations.py").read_text("utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == dispatcher)
    compared = [node.comparators[0].value for node in ast.walk(body) if isinstance(node, ast.Compare)]
    assert sorted(compared) == sorted(ACTIVATIONS) == sorted(eager.ACTIVATIONS)
