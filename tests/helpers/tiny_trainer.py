"""A short training by transformers' Trainer, the same in one process and in several."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import build, enlarge
from torch import nn
from torch.utils.data import Dataset

from adapter_fast import AdapterConfig, add_adapters, train_adapters


class _Rows(Dataset):
    """One batch an epoch, so that its gradient is the same in whatever order the rows come."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> dict[str, torch.Tensor | int]:
        ids = torch.randint(5, 60, (9,), generator=torch.Generator().manual_seed(row))
        return {"input_ids": ids, "labels": row % 3}


def train(folder: Path, rows: int) -> tuple[nn.Module, int]:
    """Three steps with so many rows a process: the model, and over how many processes Trainer says it went."""
    from transformers import Trainer, TrainingArguments

    model = build(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    train_adapters(enlarge(add_adapters(model, AdapterConfig(6, scale=0.7))))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=rows,
        max_steps=3,
        optim="sgd",  # Adam would make noise of gradients near zero as large as a step
        learning_rate=0.1,
        average_tokens_across_devices=False,  # it multiplies the loss of a model that ignores the number of tokens
        use_cpu=True,
        ddp_backend="gloo" if torch.distributed.is_initialized() else None,
        ddp_find_unused_parameters=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=_Rows())
    trainer.train()
    return model, trainer.args.world_size
