"""The names of values and of weights: the beginnings of their sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(value: Any) -> str:
    """16 hex digits of the sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of the sha256 over names and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        found.update(name.encode())
        found.update(value.view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
