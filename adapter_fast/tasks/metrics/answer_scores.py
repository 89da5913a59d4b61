"""Exact match and F1 of answers, as SQuAD v1.1's own evaluation script computes them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an, the, white space as single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, gold: str) -> float:
    """1 where both are equal once normalised, else 0."""
    return float(normalize_answer(predicted) == normalize_answer(gold))


def token_f1(predicted: str, gold: str) -> float:
    """F1 of the normalised words, counted as often as they occur; 0 where no word is in both, as in v1.1's script."""
    ours, theirs = normalize_answer(predicted).split(), normalize_answer(gold).split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def score_answers(predicted: Mapping[str, str], gold: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """exact_match and f1 as fractions: the mean over questions of the best over each question's gold answers.

    Args:
        predicted: the answer to each question by its id; one that is missing counts as wrong.
        gold: one or more right answers to each question by its id.
    """
    totals = {"exact_match": 0.0, "f1": 0.0}
    for name, answers in gold.items():
        if name in predicted:
            totals["exact_match"] += max(exact_match(predicted[name], answer) for answer in answers)
            totals["f1"] += max(token_f1(predicted[name], answer) for answer in answers)
    return {name: total / len(gold) for name, total in totals.items()}
