"""A 16-bit checkpoint tuned by `tune`: what trains moves, and the score is that of float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.models import find_model
from adapter_fast.tasks.tuning import ADAPTER, tune


@pytest.mark.slow
def test_a_bfloat16_minilm_moves_every_gain_and_scores_as_float32_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5 keeps a checkpoint's dtype: the example was 0 of 160 gains moved."""
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setenv("TRITON_INTERPRET", "0")
    half = tmp_path / "half"
    AutoModel.from_pretrained(find_model("minilm"), dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(find_model("minilm")).save_pretrained(half)
    scores = []
    for number, model in enumerate(("minilm", str(half))):
        sizes = {"train_size": 480, "test_size": 400, "epochs": 4, "max_length": 32}
        done = tune(Settings(model=model, task="reuters-r8", **sizes), tmp_path / str(number), report=lambda _: None)  # type: ignore[arg-type]
        scores.append(done.results["metrics"]["accuracy"])
    assert abs(scores[0] - scores[1]) <= 0.01
    base = safetensors.torch.load_file(half / "model.safetensors")
    saved = safetensors.torch.load_file(tmp_path / "1" / ADAPTER / "adapter.safetensors")
    norms = {key: value for key, value in saved.items() if key.startswith("layer_norm.")}
    assert len(norms) == 26
    for key, value in norms.items():
        assert value.dtype == torch.float32
        assert not (value == base[key.removeprefix("layer_norm.")].float()).any(), key
