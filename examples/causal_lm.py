"""Tune adapters of a causal language model, two tasks on one base, and generate with each.

python examples/causal_lm.py                            # gpt2, from the hub; --model takes any causal model
python examples/causal_lm.py --tiny                     # random weights, nothing is downloaded, seconds
"""

import argparse

import offline
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from adapter_fast import AdapterConfig, add_adapters, disable_adapters, set_adapter, train_adapters
from adapter_fast.recipe import create_optimizer, training_arguments_defaults

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="gpt2")
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--output", default="runs/causal_lm")
arguments = parser.parse_args()
set_seed(0)
learning_rate, epochs = (1e-2, 10) if arguments.tiny else (1e-3, 3)

if arguments.tiny:
    tokenizer = offline.tokenizer()
    model = AutoModelForCausalLM.from_config(offline.gpt2())
else:
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

# One adapter a task: praise and blame. The language model's head is pretrained, so it stays frozen.
settings = training_arguments_defaults() | {"learning_rate": learning_rate, "report_to": "none", "save_strategy": "no"}
settings["dataloader_pin_memory"] = torch.cuda.is_available()
for task, label in (("praise", 1), ("blame", 0)):
    add_adapters(model, AdapterConfig(bottleneck=16), task)
    train_adapters(model, task, head=False)
    texts = [row["text"] for row in offline.reviews(320) if row["label"] == label]
    trainer = Trainer(
        model,
        TrainingArguments(f"{arguments.output}/{task}", num_train_epochs=epochs, **settings),
        train_dataset=[tokenizer(text) for text in texts],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        optimizers=(create_optimizer(model, learning_rate), None),
    )
    result = trainer.train()
    print(f"{task}: loss {result.training_loss:.2f}")

# Switching tasks moves only adapters and LayerNorms.
model.eval()
prompt = tokenizer("the film was a", return_tensors="pt", add_special_tokens=False).to(model.device)


def say() -> str:
    """What the model goes on with."""
    torch.manual_seed(0)
    length = {"max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": tokenizer.pad_token_id}
    said = model.generate(input_ids=prompt.input_ids, attention_mask=prompt.attention_mask, do_sample=True, **length)
    return tokenizer.decode(said[0])


for task in ("praise", "blame"):
    set_adapter(model, task)
    print(f"{task}: {say()}")
with disable_adapters(model):
    print(f"without adapters: {say()}")
