"""What an adapter takes while training: extra_info has the peak above its inputs, in bytes."""

SUITE = "memory"


def bench_memory(measure):
    measure()
