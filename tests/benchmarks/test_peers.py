"""Whole models and AdapterHub as contenders: each is built, found right or refused, timed and weighed."""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from adapter_fast import functional
from adapter_fast.benchmarks.cases import budgets, whole_models
from adapter_fast.benchmarks.cases.whole_models import (
    ModelCase,
    latency_cases,
    make_tokens,
    model_cases,
    model_floor_us,
)
from adapter_fast.benchmarks.peers import adapterhub
from adapter_fast.benchmarks.peers.build import base_model, houlsby_model
from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.peers.lin import lin_bottleneck, lin_model
from adapter_fast.benchmarks.peers.lora import lora_model, lora_rank
from adapter_fast.benchmarks.peers.model_peers import model_contenders
from adapter_fast.measure.roofline import Ceilings, Shape, floor_us
from adapter_fast.testing import Case

STEP = ModelCase("model", "tiny-bert", 3, 16, 8, phase="step")
FORWARD = replace(STEP, phase="forward")
LATENCY = ModelCase("latency", "tiny-gpt2", 2, 12, 6, budget=3_400)
CASES = {"step": STEP, "forward": FORWARD, "latency": LATENCY}
OURS = ("fused", "reference", "compile", "fused-compile")
BARE = ("bare-compile", "adapterhub-bare", "bare")
NAMES = {
    "step": (*OURS, "adapterhub", "peft-lora", "full", "bare"),
    "forward": (*OURS, "adapterhub", "peft-lora", "peft-lora-merged", *BARE),
    "latency": (*OURS, "adapterhub", "peft-lora", "peft-lora-merged", "adapter-l", *BARE),
}
HERE = [(case, name) for case, names in NAMES.items() for name in names if "adapterhub" not in name]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """PyTorch's backend, and a compiler that traces and generates no code: the benchmarks' own smoke test does."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def contender(name, case):
    if "lora" in name:
        pytest.importorskip("peft")
    return model_contenders(case, "cpu")[name]()


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def logits(model, case):
    with torch.inference_mode():
        return model(make_tokens(case, "cpu")[0]).logits


# Every contender of a model


def test_everyone_is_there():
    assert {key: set(model_contenders(case, "cpu")) for key, case in CASES.items()} == {
        key: set(names) for key, names in NAMES.items()
    }


@pytest.mark.parametrize(("key", "name"), HERE)
def test_contender_is_right_and_gives_figures(key, name):
    counters.clear()
    one = contender(name, CASES[key])
    one.warm()
    one.check()
    compiled = counters["stats"]["unique_graphs"]
    assert one.name == name
    assert one.peak() > 0
    assert one.sampler("eager")() > 0
    assert one.sampler("graph-hot") is None  # there are none on a CPU
    one.check()  # timing changed the weights of a step, and nothing else
    assert counters["stats"]["unique_graphs"] == compiled, "compiled anew while it was timed"
    assert (compiled > 0) == name.endswith("compile")
    one.close()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("step", "fused"),
        ("forward", "compile"),
        ("latency", "fused"),
        ("latency", "peft-lora"),
        ("latency", "adapter-l"),
    ],
)
def test_bfloat16(key, name):
    """By autocast over float32 weights in the model suite, with 16-bit weights in the latency suite."""
    case = replace(CASES[key], dtype="bfloat16")
    one = contender(name, case)
    expected = torch.bfloat16 if case.suite == "latency" else torch.float32
    assert {parameter.dtype for parameter in one.model.parameters()} == {expected}
    one.warm()
    one.check()
    if case.phase == "forward":
        assert one.forward().dtype == torch.bfloat16


def test_what_a_step_trains():
    expected = {
        "bare": {"classifier"},
        "peft-lora": {"classifier", "lora_A", "lora_B"},
        "fused": {"classifier", "LayerNorm", "adapters"},
        "full": {"classifier", "LayerNorm", "query", "word_embeddings"},
    }
    for name, parts in expected.items():
        one = contender(name, STEP)
        before = {key: value.detach().clone() for key, value in one.model.named_parameters()}
        one.run()
        changed = {key for key, value in one.model.named_parameters() if not torch.equal(value, before[key])}
        assert changed <= {key for key, value in one.model.named_parameters() if value.requires_grad}, name
        assert all(any(part in key for key in changed) for part in parts), name
        if name != "full":
            assert all(any(part in key for part in parts) for key in changed), name


def test_contenders_of_a_forward_pass_share_the_bases_parameters():
    pytest.importorskip("peft")
    base = {value.data_ptr() for value in base_model(LATENCY, "cpu").parameters()}
    for model in (houlsby_model(LATENCY, "cpu", "fused"), lin_model(LATENCY, "cpu"), lora_model(LATENCY, "cpu")):
        assert base <= {value.data_ptr() for value in model.parameters()}
    own = base - {value.data_ptr() for value in lora_model(LATENCY, "cpu", merged=True).parameters()}
    assert len(own) == 2 * LATENCY.layers  # weight and bias of each c_attn, which merging writes to
    one, other = (next(base_model(STEP, "cpu").parameters()) for _ in range(2))
    assert torch.equal(one, other)
    assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize("case", [FORWARD, LATENCY], ids=lambda case: case.suite)
def test_attention_without_a_mask_is_transformers_own_and_reads_nothing_back(case):
    class ReadsBack(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            assert not any(name in str(function) for name in ("is_nonzero", "_local_scalar_dense", "nonzero"))
            return function(*arguments, **(options or {}))

    model = base_model(case, "cpu")
    with ReadsBack():
        without = logits(model, case)
    model.config._attn_implementation = "sdpa"
    torch.testing.assert_close(without, logits(model, case))


# Wrong results are refused


def scaled(y, x):
    return y * 1.01


def identity(y, x):
    return x


def wrong_gradient(y, x):
    return y + 0.05 * (y - y.detach())


@pytest.mark.parametrize(
    ("case", "name", "wrong"),
    [
        (FORWARD, "fused", scaled),
        (LATENCY, "fused", scaled),
        (LATENCY, "fused", identity),
        (FORWARD, "fused-compile", scaled),
        (STEP, "fused", scaled),
        (STEP, "fused", wrong_gradient),
    ],
)
def test_a_wrong_adapter_is_refused(case, name, wrong, monkeypatch):
    right = functional.fused_adapter
    torch._dynamo.reset()
    monkeypatch.setattr(functional, "fused_adapter", lambda x, *rest, **options: wrong(right(x, *rest, **options), x))
    one = contender(name, case)
    one.warm()
    with pytest.raises(AssertionError, match=rf"^{name}, {case.name}: (logits|loss|gradients)"):
        one.check()


def test_a_wrong_adapter_is_refused_under_autocast(monkeypatch):
    case = replace(FORWARD, dtype="bfloat16")
    monkeypatch.setattr(functional, "fused_adapter", lambda x, *_, **__: x)
    with pytest.raises(AssertionError, match="logits"):
        contender("fused", case).check()


def test_a_missing_gradient_is_refused():
    one = contender("fused", STEP)
    one.model.classifier.bias.requires_grad_(False)
    with pytest.raises(AssertionError, match="gradients of 27 parameters, expected 28"):
        one.check()


# Who cannot run says why


def test_a_failure_to_compile_is_a_reason(monkeypatch):
    def failing(model, **_):
        def call(*_, **__):
            raise RuntimeError("no C++ compiler\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(Unavailable, match=r"^RuntimeError: no C\+\+ compiler$"):
        contender("compile", FORWARD).warm()


def test_peft_that_is_not_installed_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(Unavailable, match="peft is not installed: pip install peft"):
        model_contenders(FORWARD, "cpu")["peft-lora"]()


# Parameters and cases


def test_budgets_are_the_lora_papers():
    """GPT-2 medium: Adapter-H of 11.09 million has m = 112, Adapter-L 224 (arXiv 2106.09685, Table 3 and section F)."""
    assert budgets.lin_parameters(1024, 24)(224) == 11_089_152
    assert budgets.nearest(budgets.lin_parameters(1024, 24), 11_090_000) == 224
    assert budgets.nearest(budgets.houlsby_parameters(1024, 24), 11_090_000) == 112
    assert budgets.nearest(budgets.lora_parameters(1024, 24), 11_090_000) == 113
    assert budgets.nearest(budgets.houlsby_parameters(1024, 24), 1) == 1


@pytest.mark.parametrize("function", [budgets.houlsby_parameters, budgets.lin_parameters, budgets.lora_parameters])
@pytest.mark.parametrize("budget", [3_400, 500_000, 11_090_000])
def test_nearest_is_nearest(function, budget):
    parameters = function(64, 2)
    m = budgets.nearest(parameters, budget)
    assert abs(parameters(m) - budget) == min(abs(parameters(other) - budget) for other in (m - 1, m, m + 1) if other)


def test_contenders_have_the_parameters_they_say():
    pytest.importorskip("peft")
    bare = count(base_model(LATENCY, "cpu"))
    for name, build in {
        "fused": partial(houlsby_model, implementation="fused"),
        "peft-lora": lora_model,
        "adapter-l": lin_model,
    }.items():
        added = count(build(LATENCY, "cpu")) - bare
        assert contender(name, LATENCY).parameters == added, name
        assert abs(added - LATENCY.budget) < 300, name
    assert contender("bare", LATENCY).parameters == 0
    assert count(lora_model(LATENCY, "cpu", merged=True)) == bare


def test_grids():
    cuda = latency_cases("cuda")
    assert [(case.batch, case.seq_len, case.size) for case in cuda] == [
        (1, 128, "11M"),
        (16, 256, "11M"),
        (32, 512, "0.5M"),
    ]
    assert [(case.bottleneck, lin_bottleneck(case), lora_rank(case)) for case in cuda] == [
        (112, 224, 113),
        (112, 224, 113),
        (5, 9, 5),
    ]
    assert {(case.preset, case.dtype, case.phase) for case in cuda} == {("gpt2-medium", "bfloat16", "forward")}
    names = [(case.name, case.phase) for case in model_cases("cuda")]
    assert names[0] == ("bert-base-b32-s128-m64-bfloat16", "step")
    assert names[3] == ("bert-base-b8-s512-m64-bfloat16", "forward")
    assert (cuda[0].tokens, cuda[0].hidden, cuda[0].layers) == (128, 1024, 24)
    for device in ("cpu", "cuda"):
        assert {case.preset for case in model_cases(device, quick=True)} == {"tiny-bert"}
        assert {case.preset for case in latency_cases(device, quick=True)} == {"tiny-gpt2"}
    assert {case.dtype for case in model_cases("cpu", dtype="bfloat16")} == {"bfloat16"}


def test_tokens_are_the_same_for_all_and_none_is_padding():
    ids, labels = make_tokens(STEP, "cpu")
    assert torch.equal(ids, make_tokens(FORWARD, "cpu")[0])
    assert ids.shape == (3, 16)
    assert ids.min() > 0
    assert ids.max() < 128
    assert set(labels.tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("case", "phase", "weight"), [(FORWARD, "forward", 4), (STEP, "forward+backward", 4), (LATENCY, "forward", 2)]
)
def test_floor_is_the_bare_models_time_and_that_of_its_adapters(case, phase, weight):
    ceilings = Ceilings(copy_gbps=10.0, tflops=0.1)
    case = replace(case, dtype="bfloat16")
    one = floor_us(Shape(case.tokens, 64, case.bottleneck, 2, weight), phase, ceilings)
    assert model_floor_us(case, 1000.0, ceilings) == pytest.approx(1000.0 + 4 * one)


# LoRA


@pytest.mark.parametrize("case", [FORWARD, LATENCY], ids=lambda case: case.suite)
def test_merged_lora_equals_unmerged_and_leaves_the_shared_base(case):
    pytest.importorskip("peft")
    bare = logits(base_model(case, "cpu"), case)
    merged, unmerged = lora_model(case, "cpu", merged=True), lora_model(case, "cpu")
    torch.testing.assert_close(logits(merged, case), logits(unmerged, case), rtol=1e-4, atol=1e-5)
    assert not [name for name, _ in merged.named_modules() if "lora" in name]
    assert (logits(unmerged, case) - bare).abs().max() > 1e-3
    assert torch.equal(logits(base_model(case, "cpu"), case), bare)


def test_lora_is_as_wide_as_the_adapters():
    pytest.importorskip("peft")
    assert whole_models.config_of("tiny-bert").hidden_size == 64
    model = lora_model(STEP, "cpu")
    ranks = {value.shape[0] for name, value in model.named_parameters() if "lora_A" in name}
    assert ranks == {lora_rank(STEP)} == {9}
    names = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}
    assert names == {"query", "value"}


# AdapterHub: a stand-in library shows how the worker behaves, the real one that it is measured

STAND_IN = """
import os, sys, torch
from torch import nn

class Adapter(nn.Module):
    def __init__(self, name, input_size, down_sample, config):
        super().__init__()
        self.adapter_down = nn.Sequential(nn.Linear(input_size, down_sample), nn.GELU())
        self.adapter_up = nn.Linear(down_sample, input_size)
        self.m = down_sample

    def forward(self, x, residual_input):
        print("noise between the answers")
        if self.m == 3:
            raise RuntimeError("cannot\\nat all")
        if self.m == 5:
            print("segmentation fault, more or less", file=sys.stderr, flush=True)
            os._exit(7)
        up = self.adapter_up(self.adapter_down(x)) * (1.01 if self.m == 6 else 1.0)
        return up + residual_input, None, up
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "adapters"
    (package / "methods").mkdir(parents=True)
    (package / "__init__.py").write_text("DoubleSeqBnConfig = dict\n")
    (package / "methods/__init__.py").write_text("")
    (package / "methods/modeling.py").write_text(STAND_IN)
    monkeypatch.setenv(adapterhub.VARIABLE, str(tmp_path))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    adapterhub._hub().close()
    yield
    adapterhub._hub().close()


def op(m, phase="forward"):
    return adapterhub.adapterhub_op(Case(16, 8, m), phase)


def test_worker_measures_refuses_dies_and_starts_again(stand_in, capfd):
    first = op(4)
    first.warm()
    first.check()
    assert first.sampler("eager")() > 0
    assert first.peak() > 0
    with pytest.raises(AssertionError, match=r"^adapterhub, T16-d8-m6-float32: y: max error"):
        op(6).check()
    with pytest.raises(Unavailable, match=r"^RuntimeError: cannot$"):
        op(3).warm()
    assert first.sampler("eager")() > 0  # the others go on
    with pytest.raises(Unavailable, match="process ended: segmentation fault, more or less"):
        op(5).warm()
    second = op(4)
    second.check()
    with pytest.raises(Unavailable, match="started anew"):
        first.warm()
    first.close()
    second.close()
    assert capfd.readouterr().out == ""


def test_no_worker_without_the_library(stand_in, monkeypatch, tmp_path):
    monkeypatch.setenv(adapterhub.VARIABLE, str(tmp_path / "elsewhere"))
    for make in (partial(op, 4), partial(adapterhub.adapterhub_model, STEP, "cpu")):
        with pytest.raises(Unavailable, match=r"^AdapterHub is not installed: make peers$"):
            make()


def test_a_broken_library_is_a_reason(stand_in, tmp_path):
    (tmp_path / "adapters/__init__.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(Unavailable, match="ModuleNotFoundError: No module named 'no_such_module_at_all'"):
        op(4)


def test_an_interrupt_ends_the_worker(stand_in, monkeypatch):
    first = op(4)
    process = adapterhub._hub()._process

    def interrupted(request):
        raise KeyboardInterrupt

    monkeypatch.setattr(adapterhub._hub(), "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.warm()
    assert process.poll() is not None


needs_adapterhub = pytest.mark.skipif(
    not (adapterhub.folder() / "adapters").is_dir(), reason="AdapterHub is not installed: make peers"
)


@needs_adapterhub
def test_adapterhubs_op():
    for phase in ("forward", "backward", "forward+backward"):
        one = op(4, phase)
        one.warm()
        one.check()
        assert one.parameters == 2 * 8 * 4 + 8 + 4
        assert one.sampler("eager")() > 0
        assert one.peak() > 0
        assert one.note.startswith("adapters 1.3.0")
        one.close()


@needs_adapterhub
@pytest.mark.parametrize("case", [STEP, FORWARD, LATENCY], ids=lambda case: f"{case.suite}-{case.phase}")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapterhubs_model(case, dtype):
    one = contender("adapterhub", replace(case, dtype=dtype))
    one.warm()
    one.check()
    assert one.parameters == contender("reference", case).parameters
    assert one.peak() > 0
    assert one.sampler("eager")() > 0
    assert one.sampler("graph-hot") is None
    assert "transformers 4.57" in one.note
    one.close()


def test_the_worker_has_our_threads_and_ends_with_us(stand_in):
    op(4).close()
    hub = adapterhub._hub()
    process = hub._process
    entries = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    environment = dict(entry.split("=", 1) for entry in entries if entry)
    assert environment["OMP_NUM_THREADS"] == str(torch.get_num_threads())
    assert "TRITON_INTERPRET" not in environment
    assert "TRITON_INTERPRET" in os.environ
    hub.close()
    assert process.poll() == 0


@needs_adapterhub
def test_the_bare_model_that_adapterhub_stands_against():
    one = contender("adapterhub-bare", LATENCY)
    one.warm()
    one.check()
    assert one.sampler("eager")() > 0
    assert one.parameters == 0 and one.note.startswith("no adapters, transformers 4.57")
    one.close()
