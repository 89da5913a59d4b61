"""Tune adapters on a text classification task with transformers.Trainer, save them, and load them into a fresh base.

python examples/classification.py                       # bert-base-uncased, from the hub
python examples/classification.py --tiny                # random weights, nothing is downloaded, seconds
"""

import argparse
import copy

import offline
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from adapter_fast import AdapterConfig, adapter_summary, add_adapters, load_adapters, save_adapters, train_adapters
from adapter_fast.recipe import create_optimizer, training_arguments_defaults

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="bert-base-uncased")
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--output", default="runs/classification")
arguments = parser.parse_args()
set_seed(0)
learning_rate, epochs = (1e-2, 10) if arguments.tiny else (1e-3, 3)

# 1. A base model as always. Your own data goes here: anything with texts and labels.
if arguments.tiny:
    tokenizer = offline.tokenizer()
    base = AutoModelForSequenceClassification.from_config(offline.bert())
else:
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    base = AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=2)
train, test = (
    [{**tokenizer(row["text"]), "labels": row["label"]} for row in offline.reviews(count, seed)]
    for count, seed in ((320, 0), (80, 1))
)

# 2. Two lines: adapters behind both sub-layers, and all else frozen but LayerNorms and head.
model = copy.deepcopy(base)
add_adapters(model, AdapterConfig.houlsby(bottleneck=16))
train_adapters(model)
print(adapter_summary(model))

# 3. Trainer, with the paper's recipe.
settings = training_arguments_defaults() | {"learning_rate": learning_rate, "report_to": "none", "save_strategy": "no"}
settings["dataloader_pin_memory"] = torch.cuda.is_available()
trainer = Trainer(
    model,
    TrainingArguments(arguments.output, num_train_epochs=epochs, **settings),
    train_dataset=train,
    data_collator=DataCollatorWithPadding(tokenizer),
    optimizers=(create_optimizer(model, learning_rate), None),
)
trainer.train()
predicted = trainer.predict(test)
print(f"accuracy {(predicted.predictions.argmax(-1) == predicted.label_ids).mean():.3f}")

# 4. One small directory a task. A fresh base with it says the same.
save_adapters(model, f"{arguments.output}/adapter")
fresh = load_adapters(base, f"{arguments.output}/adapter").eval().to(model.device)
batch = DataCollatorWithPadding(tokenizer)(test[:4]).to(model.device)
with torch.no_grad():
    print(f"loaded again: {torch.equal(fresh(**batch).logits, model.eval()(**batch).logits)}")
