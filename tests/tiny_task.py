"""A tiny BERT with a WordPiece tokenizer on disk, and a three-class task it can learn, made without a network."""

from __future__ import annotations

import csv
import random
from pathlib import Path

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOPICS = {"grain": ["wheat", "corn", "barley"], "metal": ["gold", "zinc", "copper"], "money": ["bank", "rate", "bond"]}
FILLER = ["the", "of", "said", "a", "in", "to", "and", "for", "market", "today"]


def write_model(directory: Path, config: object | None = None) -> Path:
    """Save a two-layer BERT (or a model of the config) and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast

    words = [*SPECIAL, *FILLER, *(word for group in TOPICS.values() for word in group)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(directory)
    if config is None:
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            initializer_range=0.2,  # large enough to learn in a few steps
        )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    return directory


def write_task(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """A balanced CSV of filler with three words of the label's topic."""
    chance = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(rows):
            label = list(TOPICS)[i % len(TOPICS)]
            words = chance.choices(FILLER, k=chance.randint(1, 3)) + chance.choices(TOPICS[label], k=3)
            chance.shuffle(words)
            writer.writerow([" ".join(words), label])
    return path
