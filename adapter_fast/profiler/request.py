"""What a profile is asked for, and the one exception that says why it cannot be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

DTYPES = ("float32", "bfloat16", "float16")


class ProfileError(ValueError):
    """A profile that cannot be made: one line that says what was given and what was expected."""


@dataclass(frozen=True)
class Request:
    """One profile: T = batch · seq_len tokens, no padding, through `model` in `dtype` on `device`.

    model: "random:" and a key of presets.PRESETS, "minilm", a model directory or a hub name. adapter: a directory of
    save_adapters; without it a fresh Houlsby adapter of `bottleneck` (64) and `implementation` ("fused").
    compiled, cuda_graph: how the latencies are taken. repeats: timed forwards of each of the two models.
    """

    model: str
    batch: int
    seq_len: int
    adapter: Path | None = None
    dtype: str = "float32"
    device: str = "cpu"
    bottleneck: int | None = None
    implementation: str | None = None
    compiled: bool = False
    cuda_graph: bool = False
    repeats: int = 100

    @property
    def tokens(self) -> int:
        """T."""
        return self.batch * self.seq_len


def check_request(request: Request) -> None:
    """Raise ProfileError on the first field that no model could meet here."""
    for name in ("batch", "seq_len"):
        if getattr(request, name) < 1:
            raise ProfileError(f"{name} must be at least 1, got {getattr(request, name)}")
    if request.repeats < 2:
        raise ProfileError(f"repeats must be at least 2, got {request.repeats}")
    if request.dtype not in DTYPES:
        raise ProfileError(f"dtype must be one of {', '.join(DTYPES)}, got {request.dtype!r}")
    if request.device == "cuda" and not torch.cuda.is_available():
        raise ProfileError("device cuda is asked for, and there is no CUDA GPU that torch can use")
    if request.cuda_graph and request.device != "cuda":
        raise ProfileError(f"--cuda-graph needs a CUDA GPU, the device is {request.device}")
    if request.adapter and (request.bottleneck or request.implementation):
        raise ProfileError("--bottleneck and --implementation are for a fresh adapter: a saved one brings its own")
