"""Whole models to measure: the shapes of the model and latency suites."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from adapter_fast.benchmarks.cases import DTYPES
from adapter_fast.benchmarks.cases.budgets import houlsby_parameters, nearest
from adapter_fast.measure.presets import PRESETS
from adapter_fast.measure.roofline import Ceilings, Phase, Shape, floor_us

# The LoRA paper's budgets for GPT-2 medium (arXiv 2106.09685, Table 1 and Table 3), and the same shares for the others.
SMALL, LARGE = 500_000, 11_090_000
BUDGETS = {"distilgpt2": 1_945_000, "tiny-gpt2": 3_400}


@dataclass(frozen=True)
class ModelCase:
    """One transformer, one batch, one bottleneck.

    Args:
        suite: "model": float32 weights, a 16-bit dtype by autocast. "latency": the weights themselves are in `dtype`.
        preset: a key of presets.PRESETS. batch, seq_len: batch · seq_len tokens.
        bottleneck: m of the Houlsby adapters, two a layer.
        dtype: what it computes in, a key of DTYPES.
        phase: "forward": one inference pass. "step": one training step.
        budget: parameters that the other methods may add; None: as many as the Houlsby adapters have.
    """

    suite: Literal["model", "latency"]
    preset: str
    batch: int
    seq_len: int
    bottleneck: int
    dtype: str = "float32"
    phase: Literal["forward", "step"] = "forward"
    budget: int | None = None

    @property
    def name(self) -> str:
        """As it stands in tables and result files; the phase has a column of its own."""
        return f"{self.preset}-b{self.batch}-s{self.seq_len}-m{self.bottleneck}-{self.dtype}"

    @property
    def tokens(self) -> int:
        """T."""
        return self.batch * self.seq_len

    @property
    def hidden(self) -> int:
        """d."""
        return config_of(self.preset).hidden_size

    @property
    def layers(self) -> int:
        """L."""
        return config_of(self.preset).num_hidden_layers

    @property
    def weight_dtype(self) -> torch.dtype:
        """Of the model's own parameters."""
        return DTYPES[self.dtype] if self.suite == "latency" else torch.float32

    @property
    def autocast(self) -> bool:
        """Whether the model computes in another dtype than its weights'."""
        return DTYPES[self.dtype] != self.weight_dtype

    @property
    def parameters(self) -> int:
        """What each method may add: the budget, or what the Houlsby adapters have."""
        return self.budget or houlsby_parameters(self.hidden, self.layers)(self.bottleneck)

    @property
    def size(self) -> str:
        """The budget in millions, as the LoRA paper writes it: 11M, 0.5M."""
        millions = self.parameters / 1e6
        return f"{millions:.0f}M" if millions >= 10 else f"{millions:.1f}M" if millions >= 0.1 else f"{millions:.4f}M"


@lru_cache
def config_of(preset: str) -> Any:
    """The transformers configuration of a preset."""
    import transformers

    prefix, arguments = PRESETS[preset]
    return getattr(transformers, f"{prefix}Config")(**arguments)


def attention() -> str:
    """The name of an attention of transformers that calls PyTorch's SDPA without a mask, since no row here is padded.

    Left alone, GPT-2 waits for the GPU to look at its positions, and under torch.compile and in CUDA graphs both models
    make a mask that keeps SDPA from its fastest kernels: all contenders would be slower, and not alike.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("sdpa-without-mask", sdpa_attention_forward)
    return "sdpa-without-mask"


def model_cases(device: str, quick: bool = False, dtype: str | None = None) -> list[ModelCase]:
    """The grid of the model suite, training steps first.

    Args:
        device: "cpu" or "cuda". quick: one tiny model, to see that all runs.
        dtype: a key of DTYPES; by default bfloat16 on a GPU and float32 on a CPU.
    """
    kind = dtype or ("bfloat16" if device == "cuda" else "float32")
    if quick:
        cases = [ModelCase("model", "tiny-bert", 4, 32, 16, kind)]
    elif device == "cuda":
        cases = [ModelCase("model", "bert-base", batch, seq_len, 64, kind) for batch, seq_len in ((32, 128), (8, 512))]
    else:
        cases = [ModelCase("model", "minilm-l3", 8, 64, 64, kind)]
    return [replace(case, phase=phase) for case in cases for phase in ("step", "forward")]


def latency_cases(device: str, quick: bool = False, dtype: str | None = None) -> list[ModelCase]:
    """The grid of the latency suite: the LoRA paper's Table 1 (GPT-2 medium) on a GPU, DistilGPT-2 on a CPU.

    Arguments as for model_cases.
    """
    kind = dtype or ("bfloat16" if device == "cuda" else "float32")
    if quick:
        sizes = [("tiny-gpt2", 1, 32, BUDGETS["tiny-gpt2"])]
    elif device == "cuda":
        sizes = [
            ("gpt2-medium", batch, seq_len, budget)
            for batch, seq_len, budget in ((1, 128, LARGE), (16, 256, LARGE), (32, 512, SMALL))
        ]
    else:
        sizes = [("distilgpt2", 1, 128, BUDGETS["distilgpt2"])]
    return [_latency(*size, kind) for size in sizes]


def _latency(preset: str, batch: int, seq_len: int, budget: int, dtype: str) -> ModelCase:
    config = config_of(preset)
    m = nearest(houlsby_parameters(config.hidden_size, config.num_hidden_layers), budget)
    return ModelCase("latency", preset, batch, seq_len, m, dtype, "forward", budget)


def make_tokens(case: ModelCase, device: str) -> tuple[Tensor, Tensor]:
    """Random token ids [batch, seq_len] and random labels [batch] in two classes, the same for every contender."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = config_of(case.preset).vocab_size
    # From 1: 0 is BERT's padding, and no row here is padded.
    ids = torch.randint(1, vocabulary, (case.batch, case.seq_len), generator=generator)
    labels = torch.randint(0, 2, (case.batch,), generator=generator)
    return ids.to(device), labels.to(device)


def model_floor_us(case: ModelCase, bare_us: float, ceilings: Ceilings) -> float:
    """Microseconds of the bare model (measured) plus the floor of its adapters, one a sub-layer."""
    element = DTYPES[case.dtype].itemsize
    shape = Shape(case.tokens, case.hidden, case.bottleneck, element, case.weight_dtype.itemsize)
    phase: Phase = "forward" if case.phase == "forward" else "forward+backward"
    return bare_us + 2 * case.layers * floor_us(shape, phase, ceilings)
