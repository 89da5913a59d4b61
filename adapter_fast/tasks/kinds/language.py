"""Language modelling in blocks of tokens: the next token, or the masked ones, by what the model was made for."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
)

from ...common.errors import UserError
from ..data.documents import Documents, read_documents
from ..data.encoded import IGNORED, Encoded, model_inputs
from .base import Kind
from .settings import Settings


class LanguageModelling(Kind):
    """Examples are lines of a text or documents; blocks of them are scored without what came before the block."""

    unit = "lines"
    auto_class: ClassVar[Any] = AutoModelForCausalLM
    known_metrics = ("perplexity", "loss")
    needs_fast = True
    trains_head = False

    def read(self, path: str, settings: Settings) -> Documents:
        """A .txt or .jsonl file."""
        return read_documents(path, settings.text_columns[0])

    def for_model(self, config: Any) -> Kind:
        """Masked where transformers has the model so and it is an encoder, else causal."""
        if config.is_encoder_decoder:
            raise UserError(
                f"has model_type {config.model_type!r}, an encoder with a decoder: "
                "expected a causal or masked language model"
            )
        if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
            return MaskedLanguageModelling()
        return CausalLanguageModelling().check(config)

    def score(self, predictions: np.ndarray, encoded: Encoded) -> dict[str, float]:
        """Perplexity: e to the mean loss, in nats, of all tokens that were to be told, and that mean."""
        total, count = predictions.sum(axis=0, dtype=np.float64)
        loss = total / count
        return {"perplexity": float(np.exp(loss)), "loss": float(loss)}


class CausalLanguageModelling(LanguageModelling):
    """The next token, from the second of a block on."""

    mapping = MODEL_FOR_CAUSAL_LM_MAPPING

    def check(self, config: Any) -> Kind:
        """Base's for_model: whether there is such a model."""
        return Kind.for_model(self, config)

    def encode(self, rows: Documents, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
        """Blocks, whose labels are their own tokens; a document of its own ends with the end token."""
        texts = rows.documents()
        if not rows.one_text and processor.eos_token is not None:
            texts = [text + processor.eos_token for text in texts]
        columns = _blocks(rows, processor, texts, self.length(settings), lambda ids: len(ids) > 1)
        # labels of our own: transformers' collator makes them too, but without the end tokens where eos pads
        return Encoded(rows, label_names, {**columns, "labels": [list(ids) for ids in columns["input_ids"]]})

    def collator(self, processor: Any, settings: Settings) -> DataCollatorForTokenClassification:
        """Pads inputs and labels to the longest block of the batch."""
        return DataCollatorForTokenClassification(processor)

    def reduce(self, outputs: Any, labels: Any) -> torch.Tensor:
        """[blocks, 2]: each block's loss, summed, and how many tokens it is over."""
        return _losses(super().reduce(outputs, labels)[:, :-1], labels[:, 1:])


class MaskedLanguageModelling(LanguageModelling):
    """The 15 % of the tokens that are masked, redrawn for every batch, and always the same in the same batch."""

    auto_class = AutoModelForMaskedLM
    mapping = MODEL_FOR_MASKED_LM_MAPPING

    def load_processor(self, where: str) -> Any:
        """A tokenizer with a mask."""
        tokenizer = super().load_processor(where)
        if tokenizer.mask_token is None:
            raise UserError("has a tokenizer without a mask token: masked language modelling needs one")
        return tokenizer

    def encode(self, rows: Documents, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
        """Blocks with a token that can be masked; the batch brings the labels."""
        special = set(processor.all_special_ids)
        length = self.length(settings)
        columns = _blocks(rows, processor, rows.documents(), length, lambda ids: not special.issuperset(ids))
        return Encoded(rows, label_names, columns)

    def collator(self, processor: Any, settings: Settings) -> DataCollatorForLanguageModeling:
        """Masks a batch."""
        return BatchMasking(processor, seed=settings.seed)

    def reduce(self, outputs: Any, labels: Any) -> torch.Tensor:
        """[blocks, 2]: each block's loss, summed, and how many tokens it is over."""
        return _losses(super().reduce(outputs, labels), labels)


class BatchMasking(DataCollatorForLanguageModeling):
    """Draws a batch's masks from the seed and the batch itself.

    A resumed run then masks as the killed one did, and a part is scored alike after every epoch; training still sees
    new masks, since no two epochs have the same batches.
    """

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """The batch with masked input_ids and labels; at least one token is masked, or its loss would be no number."""
        ids = np.concatenate([example["input_ids"] for example in examples])
        self.generator = torch.Generator().manual_seed(zlib.crc32(ids.astype(np.int64).tobytes(), self.seed or 0))
        while True:
            batch = super().torch_call(examples)
            if (batch["labels"] != IGNORED).any():
                return batch


def _blocks(rows: Documents, processor: Any, texts: list[str], length: int, useful: Any) -> dict[str, list[Any]]:
    """The model's inputs in blocks of at most `length` tokens, special tokens included, without useless ones."""
    encoding = processor(texts, truncation=True, max_length=length, return_overflowing_tokens=True)
    columns = model_inputs(processor, encoding)
    kept = [i for i, ids in enumerate(columns["input_ids"]) if useful(ids)]
    if not kept:
        raise UserError(f"{rows.source}: its {len(rows)} texts hold no block of tokens to learn from")
    return {name: [values[i] for i in kept] for name, values in columns.items()}


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[blocks, 2] of logits [blocks, L, vocabulary]: summed cross-entropy, and the number of labels."""
    losses = cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return torch.stack([losses.sum(1), (labels != IGNORED).sum(1)], dim=1)
