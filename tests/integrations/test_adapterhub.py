"""The patch for AdapterHub's library: the same outputs and gradients, what it takes over and leaves, its host time.

The real library runs in a process of its own, with its transformers 4.57 (hub_patch.py); where it is not, these skip.
"""

import os
import subprocess
import sys

import hub_worker
import pytest

TOLERANCE = 1e-5  # of the largest value, float32
# Fused ops and compositions of a call, in two layers: with two Houlsby adapters a layer, one Pfeiffer adapter, none.
HOULSBY, PFEIFFER, THEIRS = (4, 0), (2, 0), (0, 0)
EXPECTED = {
    "double_seq_bn": HOULSBY,
    "seq_bn": PFEIFFER,
    "par_bn": THEIRS,
    "compacter": THEIRS,
    "training": HOULSBY,
    "dropout in eval": HOULSBY,
    "dropout in training": THEIRS,
    "ln_before": THEIRS,
    "ln_after": THEIRS,
    "gating": THEIRS,
    "scaling": HOULSBY,
    "learned scaling": THEIRS,
    "channel scaling": THEIRS,
    "post_add": PFEIFFER,
    "residual after ln": PFEIFFER,
    "original_ln_after": PFEIFFER,
    "leave_out": (2, 0),
    **dict.fromkeys(("gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_accurate"), HOULSBY),
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh", "relu", "silu", "swish", "tanh", "linear"), HOULSBY),
    **dict.fromkeys(("leakyrelu", "mish"), THEIRS),
    **dict.fromkeys(("roberta", "distilbert", "gpt2", "llama", "vit"), HOULSBY),
    "t5": (8, 0),  # four of them in the decoder
    **dict.fromkeys(("distilbert seq_bn", "gpt2 seq_bn", "vit seq_bn"), PFEIFFER),
    "skip_layers": (2, 0),
    "setup": PFEIFFER,
    "inactive": THEIRS,
    "stack": (8, 4),
    "stack of seq_bn": (6, 4),
    "parallel": (8, 4),
    "parallel with compacter": (4, 4),
    "parallel after compacter": (4, 4),
    "batch split": (4, 4),
    "split": (8, 4),
    "average": (4, 4),
    "fuse": (0, 4),
    "fuse of a stack": (0, 4),
    "stack on a fuse": (4, 4),
    "hooked": (3, 0),
    "subclass": THEIRS,
}
# Under autocast theirs adds a float32 residual in float32, so that is left to them.
AUTOCAST = {"autocast": 4, "autocast seq_bn": 2, "autocast float32 residual": 0}


@pytest.fixture(scope="module")
def cases():
    return hub_worker.ask("hub_patch", "cases")


@pytest.mark.parametrize("name", EXPECTED)
def test_outputs_and_gradients_are_the_same(name, cases):
    case = cases[name]
    assert (case["fused"], case["composed"]) == EXPECTED[name]
    assert case["own"] and case["dtype"]
    assert case["y"] <= TOLERANCE and case["grad"] <= TOLERANCE
    if case["fused"] == 0:
        assert case["y"] == case["grad"] == 0


def test_every_case_is_looked_at(cases):
    others = {"gating scores", "bfloat16", *AUTOCAST, "checkpointed"}
    assert set(cases) == {*EXPECTED, *others}


@pytest.mark.parametrize(("name", "fused"), {"bfloat16": 4, **AUTOCAST}.items())
def test_16_bits_are_no_worse_against_float64(name, fused, cases):
    case = cases[name]
    assert case["fused"] == fused and case["dtype"]
    assert 0 < case["ours"] <= (1.5 if fused else 1) * case["theirs"]


def test_gating_scores_come_out(cases):
    assert cases["gating scores"] == {key: {"same": True, "any": True} for key in ("single", "stack")}


def test_gradient_checkpointing(cases):
    fuse, single = cases["checkpointed"]["fuse"], cases["checkpointed"]["single"]
    assert (fuse["fused"], fuse["y"], fuse["grad"]) == (0, 0, 0)
    assert single["fused"] == 8  # once more in the backward pass
    assert single["y"] <= TOLERANCE and single["grad"] <= TOLERANCE


@pytest.mark.slow
def test_compiles_as_one_graph():
    for case in hub_worker.ask("hub_patch", "compiled").values():
        assert case["y"] <= TOLERANCE and case["grad"] <= TOLERANCE


def test_patch_and_unpatch():
    found = hub_worker.ask("hub_patch", "guards")
    assert found["patched"] == found["restored"] == [True] * 4
    assert found["unpatch refused"] == "RuntimeError: Adapter.forward was replaced after patch(): undo that first"
    assert found["patch refused"] == (
        "RuntimeError: adapters 1.3.0: Adapter.forward is not the function known from adapters 1.2.0 and 1.3.0, "
        "it is of another version or patched already"
    )
    assert found["left alone"] and found["nothing patched"]


PATCH = "from adapter_fast.integrations import adapterhub; adapterhub.unpatch(); adapterhub.patch()"


def refusal(**environment):
    root = str(hub_worker.ROOT)
    done = subprocess.run(
        [sys.executable, "-c", PATCH], env={**os.environ, **environment}, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_without_the_library():
    message = refusal(PYTHONPATH="")
    assert message.startswith("ImportError: AdapterHub's library cannot be imported (adapters absent, transformers ")
    assert message.endswith('it needs transformers 4: pip install "adapters==1.3.0" "transformers==4.57.6"')


def test_beside_transformers_5(tmp_path):
    (tmp_path / "adapters").symlink_to(hub_worker.folder() / "adapters")
    (tmp_path / "adapters-1.3.0.dist-info").symlink_to(hub_worker.folder() / "adapters-1.3.0.dist-info")
    message = refusal(PYTHONPATH=str(tmp_path))
    assert message.startswith("ImportError: AdapterHub's library cannot be imported (adapters 1.3.0, transformers 5.")


def test_host_time_of_a_call():
    """Hook, site and module add at most a third of what AdapterHub's composition adds to the adapter's computation.

    Medians of the thread's own time over rounds in which both take turns; the least of three tries, since other work
    on the machine only ever adds.
    """
    ratios = {"ours": [], "patched": []}
    for blocks in (5, 10, 15):
        path = hub_worker.ask("hub_patch", "timing", blocks)["path"]
        for name, found in ratios.items():
            found.append(path[name] / path["theirs"])
        if min(ratios["ours"]) <= 1 / 3 and min(ratios["patched"]) < 1:
            return
    raise AssertionError(f"over AdapterHub's composition path: {ratios}")
