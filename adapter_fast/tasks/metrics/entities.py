"""Entities in BIO, BIOES and BILOU tags; precision, recall and F1 (CoNLL-2000's and CoNLL-2003's measure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

OUTSIDE = "O"
# The schemes' letters for one thing: I and M inside; E and L last; S, U and W an entity of one word.
BEGINS, ENDS = "BSUW", "ELSUW"
_TYPED = re.compile(r"[BIMELSUW]-.+")
_BARE = ({"B", "I"}, {"B", "I", "E", "S"}, {"B", "M", "E", "S"}, {"B", "M", "E", "W"}, {"B", "I", "L", "U"})


def is_typed(tag: str) -> bool:
    """Whether the tag is a scheme's letter and a type, as B-PER is."""
    return _TYPED.fullmatch(tag) is not None


def has_entities(tags: Iterable[str]) -> bool:
    """Whether the tags mark entities: O and a letter with a type, or B, I … alone where there is but one type."""
    tags = set(tags) - {OUTSIDE}
    bare = "B" in tags and any(tags <= letters for letters in _BARE)
    return bool(tags) and (bare or all(map(is_typed, tags)))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first, last + 1) of every entity of a sentence; the type of B, I … alone is "".

    As conlleval reads BIO tags and seqeval BIOES: a word inside, or the last one, that follows nothing of its type
    begins an entity, as a B- does.
    """
    found = set()
    kind, first = "", -1  # of the entity that is open; -1 for none
    for i, tag in enumerate([*tags, OUTSIDE]):
        letter, _, inside = tag.partition("-")
        if first >= 0 and (letter == OUTSIDE or letter in BEGINS or inside != kind):
            found.add((kind, first, i))
            first = -1
        if letter != OUTSIDE and first < 0:
            kind, first = inside, i
        if letter in ENDS:
            found.add((kind, first, i + 1))
            first = -1
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
