"""The n best answer spans of one window of a context, from its start and end logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

N_BEST = 20  # adapter-bert and BERT, run_squad.py: n_best_size
MAX_ANSWER_TOKENS = 30  # BERT, run_squad.py: max_answer_length


class Span(NamedTuple):
    """Tokens start to end, both included, and the sum of their logits."""

    score: float
    start: int
    end: int


def best_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, n_best: int = N_BEST, max_tokens: int = MAX_ANSWER_TOKENS
) -> list[Span]:
    """The n spans with the largest start logit + end logit, the best first; of equal ones the first and shortest.

    All spans of at most max_tokens tokens are compared, not only those of the n best starts and ends.

    Args:
        start_logits, end_logits: [L] of the window's context tokens; the question, special tokens and padding are not
            among them. L = 0 gives no span.
    """
    length = min(max_tokens, len(start_logits))
    if not length:
        return []
    ends = np.concatenate([end_logits, np.full(length - 1, -np.inf, end_logits.dtype)])
    scores = start_logits[:, None] + np.lib.stride_tricks.sliding_window_view(ends, length)  # [L, length]
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")[:n_best]
    spans = [Span(float(flat[i]), int(i) // length, int(i) // length + int(i) % length) for i in order]
    return [span for span in spans if np.isfinite(span.score)]
