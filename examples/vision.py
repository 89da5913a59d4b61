"""Tune adapters of a vision transformer in its upper half only (AdapterDrop): the backward pass ends there.

python examples/vision.py                               # google/vit-base-patch16-224-in21k, from the hub
python examples/vision.py --tiny                        # random weights, nothing is downloaded, seconds
"""

import argparse

import offline
import torch
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, set_seed

from adapter_fast import AdapterConfig, adapter_summary, add_adapters, save_adapters, train_adapters
from adapter_fast.recipe import create_optimizer, training_arguments_defaults

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="google/vit-base-patch16-224-in21k")
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--output", default="runs/vision")
arguments = parser.parse_args()
set_seed(0)
learning_rate, epochs = (1e-2, 10) if arguments.tiny else (1e-3, 3)

if arguments.tiny:
    model = AutoModelForImageClassification.from_config(offline.vit())
else:
    model = AutoModelForImageClassification.from_pretrained(arguments.model, num_labels=2)
# Your own data goes here: rows of pixel_values from the model's image processor, and labels.
train, test = (offline.pictures(count, model.config.image_size, seed) for count, seed in ((128, 0), (64, 1)))

# Adapters in the upper half. Pfeiffer's placement has one a layer.
layers = model.config.num_hidden_layers
add_adapters(model, AdapterConfig.pfeiffer(bottleneck=16, layers=range(layers // 2, layers)))
train_adapters(model)
print(adapter_summary(model))

settings = training_arguments_defaults() | {"learning_rate": learning_rate, "report_to": "none", "save_strategy": "no"}
settings["dataloader_pin_memory"] = torch.cuda.is_available()
trainer = Trainer(
    model,
    TrainingArguments(arguments.output, num_train_epochs=epochs, **settings),
    train_dataset=train,
    optimizers=(create_optimizer(model, learning_rate), None),
)
trainer.train()
predicted = trainer.predict(test)
print(f"accuracy {(predicted.predictions.argmax(-1) == predicted.label_ids).mean():.3f}")
save_adapters(model, f"{arguments.output}/adapter")

# The lower half had no backward pass: nothing that enters the first adapted layer asks for a gradient.
first = model.base_model.layers[layers // 2]
seen = []
first.register_forward_pre_hook(lambda _, given: seen.append(given[0].requires_grad))
model(pixel_values=torch.stack([row["pixel_values"] for row in test[:2]]).to(model.device))
print(f"a gradient below layer {layers // 2}: {seen[0]}")
