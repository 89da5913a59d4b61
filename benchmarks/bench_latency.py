"""The LoRA paper's Table 1 again: one forward pass of GPT-2."""

SUITE = "latency"


def bench_latency(measure):
    measure()
