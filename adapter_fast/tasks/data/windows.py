"""Questions with long contexts as overlapping windows of tokens, and answers back out of the windows' logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ...common.errors import UserError
from ..metrics.answer_spans import best_spans
from .encoded import Encoded, model_inputs
from .questions import Answer, Questions


@dataclass(frozen=True)
class Window:
    """Where a window's context tokens are: its question's row, its first context token, their characters."""

    row: int
    first: int
    characters: list[tuple[int, int]]  # of each context token: from, and up to, in the context


class EncodedQuestions(Encoded):
    """One row a window: question and a part of its context, with the tokens of the first gold answer."""

    rows: Questions

    def __init__(self, rows: Questions, columns: dict[str, list[Any]], windows: list[Window]) -> None:
        super().__init__(rows, [], columns)
        self.windows = windows


def encode_questions(
    rows: Questions, tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> EncodedQuestions:
    """Cut each context into windows of max_length tokens, the question's among them, that share `stride` tokens.

    start_positions and end_positions are the first gold answer's tokens, or the classification token (the first, for a
    tokenizer without one) where the window does not hold the whole answer (Devlin et al. 2019, run_squad.py).
    """
    questions = [question.strip() for question in rows.questions]
    _check_room(rows, questions, tokenizer, max_length, stride)
    encoding = tokenizer(
        questions,
        rows.contexts,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns = model_inputs(tokenizer, encoding)
    columns |= {"start_positions": [], "end_positions": []}
    windows = []
    for i, row in enumerate(encoding["overflow_to_sample_mapping"]):
        context = [at for at, part in enumerate(encoding.sequence_ids(i)) if part == 1]
        first = context[0] if context else 0
        window = Window(row, first, [tuple(encoding["offset_mapping"][i][at]) for at in context])
        ids = encoding["input_ids"][i]
        nowhere = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        start, end = answer_tokens(window, rows.answers[row][0]) or (nowhere, nowhere)
        columns["start_positions"].append(start)
        columns["end_positions"].append(end)
        windows.append(window)
    return EncodedQuestions(rows, columns, windows)


def _check_room(
    rows: Questions, questions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> None:
    lengths = [len(ids) for ids in tokenizer(questions, add_special_tokens=False)["input_ids"]]
    longest = int(np.argmax(lengths))
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - lengths[longest]
    if room <= stride:
        raise UserError(
            f"{rows.source}: question {rows.ids[longest]!r} has {lengths[longest]} tokens and leaves {max(0, room)} of "
            f"max_length {max_length} for its context: expected more than the stride, {stride}"
        )


def answer_tokens(window: Window, answer: Answer) -> tuple[int, int] | None:
    """The first and last token of an answer in its window, counted from the window's start; None where it is cut.

    White space around the answer is not looked for: no token has it.
    """
    begin = answer.start + len(answer.text) - len(answer.text.lstrip())
    end = answer.start + len(answer.text.rstrip())
    inside = [i for i, (first, last) in enumerate(window.characters) if first < end and last > begin]
    if not inside or window.characters[0][0] > begin or window.characters[-1][1] < end:
        return None
    return window.first + inside[0], window.first + inside[-1]


def predict_answers(encoded: EncodedQuestions, start_logits: np.ndarray, end_logits: np.ndarray) -> dict[str, str]:
    """The best span's text over all windows of each question, by id; "" where no window has a span.

    Args:
        start_logits, end_logits: [windows, L], L at least the longest window.
    """
    best = dict.fromkeys(range(len(encoded.rows)), (-np.inf, ""))
    for window, starts, ends in zip(encoded.windows, start_logits, end_logits, strict=True):
        part = slice(window.first, window.first + len(window.characters))
        for span in best_spans(starts[part], ends[part], n_best=1):
            if span.score > best[window.row][0]:
                begin, end = window.characters[span.start][0], window.characters[span.end][1]
                best[window.row] = (span.score, encoded.rows.contexts[window.row][begin:end])
    return {encoded.rows.ids[row]: text for row, (_, text) in best.items()}
