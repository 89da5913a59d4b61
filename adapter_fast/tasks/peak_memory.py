"""Peak memory of a stretch of work: the allocator's on a GPU, the process's on a CPU."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"

ON_GPU = "most GPU memory allocated while training, the model included"
ON_CPU = "most resident memory while training, above the loaded model"
ON_CPU_WHOLE = "most resident memory of the process, above the loaded model"


class PeakMemory:
    """Between start and stop: `bytes` is the peak and `meaning` says of what."""

    bytes: int = 0
    meaning: str = ON_CPU

    def start(self) -> None:
        """Forget earlier peaks."""
        if torch.cuda.is_available():
            self.meaning = ON_GPU
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            CLEAR_REFS.write_text(RESET_PEAK)
        except OSError:  # some containers forbid it; the peak then counts from the start of the process
            self.meaning = ON_CPU_WHOLE
        self._start = _resident("VmRSS")

    def stop(self) -> None:
        """Read the peak."""
        if torch.cuda.is_available():
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self.bytes = max(0, _resident("VmHWM") - self._start)


def _resident(field: str) -> int:
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
