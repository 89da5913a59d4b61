"""Extractive question answering: the span of a context that answers a question."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, AutoModelForQuestionAnswering, DataCollatorWithPadding

from ..data.questions import Questions, read_questions
from ..data.windows import EncodedQuestions, encode_questions, predict_answers
from ..metrics.answer_scores import score_answers
from .base import Kind
from .settings import Settings

STRIDE_SHARE = 3  # where --stride is not given windows share a third: 128 of 384 tokens, as run_squad.py has it


class QuestionAnswering(Kind):
    """Examples are questions; a long context is cut into windows, and the best span over all of them is the answer."""

    unit = "questions"
    auto_class = AutoModelForQuestionAnswering
    mapping = MODEL_FOR_QUESTION_ANSWERING_MAPPING
    known_metrics = ("f1", "exact_match")
    default_length = 384  # BERT's code, run_squad.py
    needs_fast = True
    skips_bad = True

    def read(self, path: str, settings: Settings) -> Questions:
        """A .json file of SQuAD v1.1."""
        return read_questions(path, settings.skip_bad)

    def encode(self, rows: Questions, processor: Any, label_names: list[str], settings: Settings) -> EncodedQuestions:
        """Windows of each context behind its question."""
        length = self.length(settings)
        stride = length // STRIDE_SHARE if settings.stride is None else settings.stride
        return encode_questions(rows, processor, length, stride)

    def collator(self, processor: Any, settings: Settings) -> DataCollatorWithPadding:
        """Pads to the longest window of the batch."""
        return DataCollatorWithPadding(processor)

    def reduce(self, outputs: Any, labels: Any) -> torch.Tensor:
        """The start and end logits, [windows, L, 2]."""
        return torch.stack([outputs[0], outputs[1]], dim=-1)

    def score(self, predictions: np.ndarray, encoded: EncodedQuestions) -> dict[str, float]:
        """F1 and exact match."""
        answers = predict_answers(encoded, predictions[..., 0], predictions[..., 1])
        gold = {name: [answer.text for answer in given] for name, given in zip(encoded.rows.ids, encoded.rows.answers)}
        scores = score_answers(answers, gold)
        return {name: scores[name] for name in self.known_metrics}
