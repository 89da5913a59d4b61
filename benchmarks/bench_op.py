"""The op by itself: forward, backward, forward+backward."""

SUITE = "op"


def bench_op(measure):
    measure()
