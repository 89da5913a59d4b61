"""A transformer with adapters: one training step, one inference forward."""

SUITE = "model"


def bench_model(measure):
    measure()
