"""What torch's profiler recorded, read back from the file that is its only public view of it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from torch.profiler import profile

from ..common.files import refusal, writing


def recorded(profiler: profile, **options: Any) -> dict[str, Any]:
    """The profiler's trace in Chrome's format.

    Args:
        profiler: one that has ended. options: of json.loads.

    Raises:
        WriteError: the folder for temporary files has no room: the profiler itself leaves a part, or nothing, silently.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        with writing(path):
            profiler.export_chrome_trace(str(path))
            try:
                return json.loads(path.read_text("utf-8"), **options)
            except (FileNotFoundError, ValueError):
                number = refusal(path)
                if number is None:
                    raise
                raise OSError(number, os.strerror(number)) from None
