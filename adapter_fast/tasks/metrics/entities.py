"""Entities in BIO tags, and their precision, recall and F1 (CoNLL-2000's and CoNLL-2003's measure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

OUTSIDE = "O"
_TAG = re.compile(r"[BI]-.+")


def is_bio(tags: Iterable[str]) -> bool:
    """Whether all tags are O, B-type or I-type, and not all of them O."""
    tags = set(tags) - {OUTSIDE}
    return bool(tags) and all(_TAG.fullmatch(tag) for tag in tags)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first, last + 1) of every entity of a sentence.

    As conlleval reads tags: an I- that follows neither B- nor I- of its type begins an entity, as a B- does.
    """
    found = set()
    kind, first = "", 0
    for i, tag in enumerate([*tags, OUTSIDE]):
        inside = tag[2:] if tag != OUTSIDE else ""
        if kind and (tag.startswith("B-") or inside != kind):
            found.add((kind, first, i))
            kind = ""
        if inside and not kind:
            kind, first = inside, i
    return found


def score_entities(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """precision, recall and f1, as fractions, of entities that are right in type and both ends, over all sentences."""
    right = in_gold = in_predicted = 0
    for ours, theirs in zip(gold, predicted, strict=True):
        wanted, given = entities(ours), entities(theirs)
        right += len(wanted & given)
        in_gold += len(wanted)
        in_predicted += len(given)
    precision = right / in_predicted if in_predicted else 0.0
    recall = right / in_gold if in_gold else 0.0
    f1 = 2 * right / (in_gold + in_predicted) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}
