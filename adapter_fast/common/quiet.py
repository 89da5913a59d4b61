"""transformers without its talk while a model loads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

CHATTY = (
    "transformers.modeling_utils",
    "transformers.distributed.tensor_parallel",
    "transformers.trainer_utils",
    "huggingface_hub.utils._http",
)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bars and its reports on shards and on weights that this architecture does not use."""
    from transformers.utils import logging as transformers_logging

    levels = {name: logging.getLogger(name).level for name in CHATTY}
    bars = transformers_logging.is_progress_bar_enabled()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
