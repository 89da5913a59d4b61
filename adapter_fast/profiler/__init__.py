"""Latency and memory of a module or a model: clocks, peaks, floors, and the profile behind `adapter-fast profile`."""

import os

# Else the profiler's library prints two lines on stderr each time; it reads this when it first starts.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
