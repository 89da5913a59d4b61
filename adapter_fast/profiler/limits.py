"""Requests too large: refused before they start where that is plain, one line where memory runs out after all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..measure.memory import free_bytes
from .request import ProfileError, Request

# Hidden states alive at once in a layer, its feed-forward's four-fold ones among them: enough to refuse the absurd.
HIDDEN_STATES = 8


@contextmanager
def memory_errors(request: Request) -> Iterator[None]:
    """Turn running out of memory inside the block into a ProfileError with the size asked and what is free."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "can't allocate memory" not in text:
            raise
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
        raise ProfileError(
            f"out of memory: {_size(request)} needs {asked[1] if asked else 'more'} in one piece, "
            f"{_gib(free_bytes(request.device))} is free on {request.device}"
        ) from error


def check_positions(model: nn.Module, request: Request) -> None:
    """Raise ProfileError where a sequence is longer than the model's positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa counts positions from behind its padding's.
            limit = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    if limit is not None and request.seq_len > limit:
        raise ProfileError(f"--seq-len {request.seq_len} is over the model's {limit} positions")


def check_room(model: nn.Module, request: Request) -> None:
    """Raise ProfileError where one layer's activations, with the logits, are more than the memory that is free."""
    config: Any = model.config
    width, what = HIDDEN_STATES * config.hidden_size, "one layer's activations"
    if getattr(model, "get_output_embeddings", lambda: None)() is not None:
        width, what = width + config.vocab_size, f"{what} and the logits"
    needed, free = request.tokens * width * getattr(torch, request.dtype).itemsize, free_bytes(request.device)
    if needed > free:
        raise ProfileError(
            f"{_size(request)} needs about {_gib(needed)} for {what}, {_gib(free)} is free on {request.device}"
        )


def _size(request: Request) -> str:
    return f"batch {request.batch} × {request.seq_len} tokens"


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
