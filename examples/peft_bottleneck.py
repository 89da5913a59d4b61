"""The same adapters as a PEFT method: BottleneckConfig with get_peft_model, Trainer, save_pretrained, from_pretrained.

python examples/peft_bottleneck.py                      # HuggingFaceTB/SmolLM2-135M, from the hub
python examples/peft_bottleneck.py --tiny               # random weights, nothing is downloaded, seconds
"""

import argparse
import copy

import offline
import torch
from peft import PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from adapter_fast.integrations.peft import BottleneckConfig

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M")
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--output", default="runs/peft_bottleneck")
arguments = parser.parse_args()
set_seed(0)
learning_rate, epochs = (1e-2, 10) if arguments.tiny else (1e-3, 3)

if arguments.tiny:
    tokenizer = offline.tokenizer()
    base = AutoModelForCausalLM.from_config(offline.llama())
else:
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    base = AutoModelForCausalLM.from_pretrained(arguments.model)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

# In place of LoraConfig. Targets are the family's sites, unless target_modules names others.
config = BottleneckConfig(task_type=TaskType.CAUSAL_LM, bottleneck=16)
model = get_peft_model(copy.deepcopy(base), config)
model.print_trainable_parameters()

trainer = Trainer(
    model,
    TrainingArguments(
        arguments.output,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        report_to="none",
        save_strategy="no",
        use_cpu=arguments.tiny,
    ),
    train_dataset=[tokenizer(row["text"]) for row in offline.reviews(320) if row["label"]],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
print(f"loss {trainer.train().training_loss:.2f}")

model.save_pretrained(f"{arguments.output}/adapter")
fresh = PeftModel.from_pretrained(base, f"{arguments.output}/adapter").eval().to(model.device)
batch = tokenizer("the film was a", return_tensors="pt").to(model.device)
given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
with torch.no_grad():
    print(f"loaded again: {torch.equal(fresh(**given).logits, model.eval()(**given).logits)}")
    with model.disable_adapter():
        print(f"the base without the adapter: {torch.equal(model(**given).logits, fresh.unload()(**given).logits)}")
