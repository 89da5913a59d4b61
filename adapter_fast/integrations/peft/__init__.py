"""Bottleneck adapters as a method of Hugging Face PEFT: importing this registers BottleneckConfig with PEFT.

    import adapter_fast.integrations.peft as bottleneck
    model = peft.get_peft_model(model, bottleneck.BottleneckConfig(task_type="SEQ_CLS"))

A process that loads such an adapter must import this first: PEFT finds a method by the name in adapter_config.json.
"""

from __future__ import annotations

try:
    import peft  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "peft":
        raise
    raise ImportError('adapter_fast.integrations.peft needs PEFT: pip install "adapter_fast[peft]"') from None

from .config import BottleneckConfig
from .layer import BottleneckLayer
from .model import BottleneckModel
from .registration import register

__all__ = ["BottleneckConfig", "BottleneckLayer", "BottleneckModel"]

register(BottleneckConfig, BottleneckModel)
