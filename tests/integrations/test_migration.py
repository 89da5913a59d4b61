"""The migration page: its lines marked python run, on a tiny model."""

import copy
import re
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import build, inputs, logits

PAGE = (Path(__file__).parents[2] / "docs/migration.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the page takes as given."""
    from adapter_fast import AdapterConfig, add_adapters
    from adapter_fast.checkpoint import export_adapterhub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    export_adapterhub(add_adapters(build(), AdapterConfig(8), "theirs"), "hub", "theirs")
    base = build()
    rows = [dict(zip(inputs(), row), labels=torch.tensor(1)) for row in zip(*inputs().values())]
    return {
        "model": copy.deepcopy(base),
        "base": base,
        "copy": copy,
        "transformers": transformers,
        "args": transformers.TrainingArguments("out", max_steps=1, report_to="none", save_strategy="no", use_cpu=True),
        "data": rows,
        "hub_directory": "hub",
    }


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block, names):
    if "peft" in block:
        pytest.importorskip("peft")
    exec(block, names)
    model = names.get("peft_model", names["model"])
    assert torch.isfinite(logits(model.eval())).all()


def test_every_promise_of_the_page_has_its_block():
    text = "".join(BLOCKS)
    for name in ("add_adapters", "load_adapters", "export_adapterhub", "BottleneckConfig", "remove_adapters"):
        assert name in text
