"""A task's rows as a model's inputs."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .rows import Rows

IGNORED = -100  # the label of tokens without a loss, in torch and transformers


class Encoded(Dataset[dict[str, Any]]):
    """Columns of a model's inputs, a row an example; padding comes with the batch.

    `rows` is what they were made of and `label_names` the classes in order: scores are computed from these.
    """

    def __init__(self, rows: Rows, label_names: list[str], columns: dict[str, list[Any]]) -> None:
        self.rows = rows
        self.label_names = label_names
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.columns.items()}


def model_inputs(tokenizer: PreTrainedTokenizerBase, encoding: Any) -> dict[str, list[Any]]:
    """The columns of a tokenizer's output that its models take."""
    return {name: encoding[name] for name in encoding if name in tokenizer.model_input_names}


def numbers_of(labels: list[str], label_names: list[str]) -> list[int]:
    """Each label's class number."""
    numbers = {label: number for number, label in enumerate(label_names)}
    return [numbers[label] for label in labels]
