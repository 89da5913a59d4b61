"""Tiny models with their tokenizers on disk, and tasks they can learn, made without a network."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOPICS = {"grain": ["wheat", "corn", "barley"], "metal": ["gold", "zinc", "copper"], "money": ["bank", "rate", "bond"]}
FILLER = ["the", "of", "said", "a", "in", "to", "and", "for", "market", "today"]
WORDS = [*SPECIAL, *FILLER, *(word for group in TOPICS.values() for word in group)]
COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}
END = "<|end|>"
POSITIONS = 32


def write_model(directory: Path, config: object | None = None, auto: str = "SequenceClassification") -> Path:
    """Save a two-layer BERT (or a model of the config) of this auto class and a WordPiece tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(directory)
    if config is None:
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=POSITIONS,
            initializer_range=0.2,  # large enough to learn in a few steps
        )
    return _save(directory, config, auto)


def write_decoder(directory: Path, auto: str = "CausalLM", config: object | None = None) -> Path:
    """Save a two-layer GPT-2 (or a model of the config) and a byte-level tokenizer that has no padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import GPT2Config, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("g", "o"), ("z", "i"), ("b", "a")]
    vocabulary = {token: i for i, token in enumerate([END, *alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, eos_token=END).save_pretrained(directory)
    if config is None:
        config = GPT2Config(
            vocab_size=len(vocabulary),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.2,
        )
    return _save(directory, config, auto)


def write_image_model(directory: Path) -> Path:
    """Save a two-layer ViT for images of 8 by 8 and its image processor."""
    from transformers import ViTConfig

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        initializer_range=0.2,
    )
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 8, "width": 8},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    _save(directory, config, "ImageClassification")
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def _save(directory: Path, config: object, auto: str) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    getattr(transformers, f"AutoModelFor{auto}").from_config(config).save_pretrained(directory)
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


def sentences(rows: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Filler with one entity of one or two words of a topic, BIO-tagged."""
    chance = random.Random(seed)
    made = []
    for _ in range(rows):
        topic = chance.choice(list(TOPICS))
        entity = chance.choices(TOPICS[topic], k=chance.randint(1, 2))
        before, after = chance.choices(FILLER, k=chance.randint(1, 4)), chance.choices(FILLER, k=chance.randint(1, 4))
        tags = [f"B-{topic}", f"I-{topic}"][: len(entity)]
        made.append(([*before, *entity, *after], ["O"] * len(before) + tags + ["O"] * len(after)))
    return made


def write_tags(path: Path, rows: int = 90) -> Path:
    """The sentences as JSON Lines or, by the path's ending, in columns."""
    made = sentences(rows)
    if path.suffix == ".jsonl":
        lines = [json.dumps({"tokens": tokens, "tags": tags}) for tokens, tags in made]
    else:
        lines = ["\n".join(f"{token}\tX\t{tag}" for token, tag in zip(*pair)) + "\n" for pair in made]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_squad(path: Path, contexts: int = 45) -> Path:
    """SQuAD v1.1 with two questions a context: where it says grain and where it says metal; contexts need windows."""
    chance = random.Random(0)
    paragraphs = []
    for i in range(contexts):
        grain, metal = chance.choice(TOPICS["grain"]), chance.choice(TOPICS["metal"])
        words = chance.choices(FILLER, k=14)
        first, second = sorted(chance.sample(range(15), 2))
        words.insert(first, grain)
        words.insert(second + 1, metal)
        context = " ".join(words)
        questions = [
            {
                "id": f"{i}-{word}",
                "question": f"{word} ?",
                "answers": [{"text": answer, "answer_start": context.index(answer)}],
            }
            for word, answer in (("rate", grain), ("bond", metal))
        ]
        paragraphs.append({"context": context, "qas": questions})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "tiny", "paragraphs": paragraphs}]}))
    return path


def write_lines(path: Path, lines: int = 60) -> Path:
    """A running text in which each topic's words follow upon each other."""
    chance = random.Random(0)
    topics = chance.choices(list(TOPICS.values()), k=lines)
    path.write_text("".join(f"the {' '.join(words)} said\n" for words in topics), encoding="utf-8")
    return path


def write_images(folder: Path, images: int = 16) -> Path:
    """Noisy images of one colour a class, of several sizes."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    for colour, value in COLOURS.items():
        (folder / colour).mkdir(parents=True)
        for i in range(images):
            noise = chance.integers(-20, 20, (8 + i % 3, 9, 3))
            Image.fromarray((np.array(value) + noise).astype(np.uint8)).save(folder / colour / f"{i:02}.png")
    return folder
