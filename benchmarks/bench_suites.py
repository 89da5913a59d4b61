"""A bench a suite, which conftest.py gives every case, phase and provider of it."""


def bench_op(measure):
    """The op by itself: forward, backward, forward+backward."""
    measure()


def bench_model(measure):
    """A transformer with adapters: one training step, one inference forward."""
    measure()


def bench_memory(measure):
    """What an adapter takes while training: extra_info has the peak above its inputs, in bytes."""
    measure()


def bench_latency(measure):
    """The LoRA paper's Table 1 again: one forward pass of GPT-2."""
    measure()
