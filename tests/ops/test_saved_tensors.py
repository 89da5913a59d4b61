"""Hooks on saved tensors: a tensor may come back in another layout, and one that does not fit is refused."""

from functools import partial

import pytest
import torch

from adapter_fast import fused_adapter
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.testing import Case, evaluate, grad_output, make_inputs

pytestmark = pytest.mark.usefixtures("poison")


def across(tensor):
    return tensor.new_empty(tensor.shape[::-1]).permute(*reversed(range(tensor.dim()))).copy_(tensor)


def odd_rows(tensor):
    return tensor.new_empty(*tensor.shape[:-1], tensor.shape[-1] + 3)[..., 1:-2].copy_(tensor)


def off(tensor):
    return tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape).copy_(tensor)


def every_other(tensor):
    return tensor.new_empty(*tensor.shape[:-1], 2 * tensor.shape[-1])[..., ::2].copy_(tensor)


def handed_back(unpack, only=None):
    """Hooks that give each saved tensor back through unpack, or those of one shape."""

    def chosen(tensor):
        return unpack(tensor) if only is None or tensor.shape == only else tensor

    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.detach(), chosen)


def through(unpack, *args, **options):
    with handed_back(unpack):
        return fused_adapter(*args, **options)


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("unpack", [across, odd_rows, off, every_other])
@pytest.mark.parametrize("T, d, m", [(21, 40, 8), (1, 24, 8)])
def test_any_layout(T, d, m, unpack, memory, backend):
    case = Case(T, d, m, torch.float32, scale=0.5)
    inputs, dy = make_inputs(case), grad_output(case)
    expected = evaluate(partial(fused_adapter, memory=memory), case, inputs, dy)
    actual = evaluate(partial(through, unpack, memory=memory), case, inputs, dy)
    for name, value in actual.items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-5, atol=1e-5, msg=lambda text, of=name: f"{of}: {text}"
        )


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("trained", [("w_up",), ("b_down",), ("w_down", "w_up")])
def test_any_layout_of_some_gradients(trained, memory):
    case = Case(21, 40, 8, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    leaves = [inputs[name] for name in trained]
    for name, tensor in inputs.items():
        if tensor is not None:
            tensor.requires_grad_(name in trained)
    given = {name: tensor for name, tensor in inputs.items() if name != "residual"}
    expected = torch.autograd.grad(fused_adapter(**given, memory=memory), leaves, dy)
    for unpack in (across, off):
        actual = torch.autograd.grad(through(unpack, **given, memory=memory), leaves, dy)
        for a, b in zip(actual, expected):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


WRONG = [
    (
        "speed",
        (37, 72),
        lambda x: x[:20],
        r"saved x must come back as \[37, 72\] .*, got \[20, 72\]",
    ),
    ("lean", (37, 72), lambda x: x[:, :64], r"saved x must .*, got \[37, 64\]"),
    (
        "speed",
        (37, 72),
        lambda x: x.double(),
        "saved x must .* torch.float32 on cpu, got .* torch.float64 on cpu",
    ),
    ("speed", (37, 16), lambda h: h[:1], r"saved h must come back as \[37, 16\] .*, got \[1, 16\]"),
    ("balanced", (37, 16), lambda z: z[:, :1].expand(37, 16).half(), "saved z must .*, got .* of torch.float16"),
    ("balanced", (37, 16), lambda z: z.flatten(), r"saved z must .*, got \[592\]"),
    ("speed", (16, 72), lambda w: w[:8], r"saved w_down must come back as \[16, 72\] .*, got \[8, 72\]"),
    ("speed", (72, 16), lambda w: w.to("meta"), "saved w_up must .* on cpu, got .* on meta"),
    ("balanced", (72, 16), lambda w: w.double(), "saved w_up must .* of torch.float32 .*, got .* of torch.float64"),
    ("lean", (16,), lambda b: b[:4], r"saved b_down must come back as \[16\] .*, got \[4\]"),
]


@pytest.mark.parametrize("memory, shape, unpack, message", WRONG)
def test_what_does_not_fit_is_refused(memory, shape, unpack, message, backend):
    case = Case(37, 72, 16, torch.float32)
    inputs = {name: tensor for name, tensor in make_inputs(case).items() if name != "residual"}
    with handed_back(unpack, only=shape):
        y = fused_adapter(**inputs, memory=memory)
    with pytest.raises(ValueError, match=message) as caught:
        torch.autograd.grad(y, list(inputs.values()), grad_output(case))
    assert "\n" not in str(caught.value)
