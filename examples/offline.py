"""Stand-ins for --tiny: models with random weights and made-up data, so that an example runs anywhere in seconds."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, GPT2Config, LlamaConfig, PreTrainedTokenizerFast, ViTConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
GOOD = ["good", "great", "lovely", "superb"]
BAD = ["bad", "awful", "dull", "poor"]
OTHER = ["the", "film", "was", "a", "story", "with", "music", "and"]
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *GOOD, *BAD, *OTHER])}
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
SPREAD = {"initializer_range": 0.1}  # random weights as small as usual would learn nothing in a few steps


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", eos_token="[SEP]"
    )


def bert() -> BertConfig:
    """A BERT of four layers."""
    return BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=32, num_labels=2, **SIZES, **SPREAD)


def gpt2() -> GPT2Config:
    """A GPT-2 of four layers."""
    return GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_positions=32,
        eos_token_id=3,
        bos_token_id=2,
        **SPREAD,
    )


def llama() -> LlamaConfig:
    """A Llama of four layers."""
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return LlamaConfig(vocab_size=len(VOCABULARY), max_position_embeddings=32, **ids, **SIZES, **SPREAD)


def vit() -> ViTConfig:
    """A ViT of four layers for images of 16 by 16."""
    return ViTConfig(image_size=16, patch_size=8, num_labels=2, **SIZES, **SPREAD)


def reviews(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Texts, labelled 1 where they praise."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        label = number % 2
        words = [*chance.choices(OTHER, k=5), *chance.choices(GOOD if label else BAD, k=2)]
        chance.shuffle(words)
        made.append({"text": " ".join(words), "label": label})
    return made


def pictures(count: int, size: int, seed: int = 0) -> list[dict[str, object]]:
    """Noise of [3, size, size], labelled 1 where it is brighter above than below."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        pixels = torch.randn(3, size, size, generator=generator)
        pixels[:, : size // 2] += 1.0 if number % 2 else -1.0
        made.append({"pixel_values": pixels, "labels": number % 2})
    return made
