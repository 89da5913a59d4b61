"""torch.compile for several models in one process."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch


def compiled_apart(call: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """torch.compile of call(*arguments, **keywords), sharing nothing with what else is compiled; static shapes.

    The compiler keeps its results with a function's code and looks at no hooks when it reuses them: with one code for
    both models, what was compiled for the bare one would run in place of the one with adapters.
    """

    def forward(*arguments: Any, **keywords: Any) -> Any:
        return call(*arguments, **keywords)

    own = FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
    return torch.compile(own, dynamic=False, **options)
