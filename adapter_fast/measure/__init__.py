"""The measuring kit that benchmarks and profiler stand on: clocks, memory, ceilings, the machine, prepared models."""

import os

# Else torch's profiler prints two lines on stderr each time; it reads this when it first starts.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
