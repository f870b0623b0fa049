"""AdaRem and AdaRem-S in Hugging Face's Trainer, on scikit-learn's digits: python examples/with_transformers.py"""

import argparse
import math

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups

parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", choices=["adarem", "adarem_s"], default="adarem")
parser.add_argument("--out", default="checkpoints/transformers", help="folder, one checkpoint an epoch")
parser.add_argument("--resume", help="checkpoint to continue from")
args = parser.parse_args()

logging.disable_progress_bar()
pixels, digits = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8)
images = torch.nn.functional.interpolate(images, size=32, mode="bilinear")
examples = [{"pixel_values": image, "labels": digit} for image, digit in zip(images, digits, strict=True)]
train, test = train_test_split(examples, test_size=360, stratify=digits, random_state=0)


class AdaRemTrainer(Trainer):
    """The Trainer asks for the optimizer when its loader is known. Scheduler and checkpoints stay the Trainer's."""

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        model = self.model if model is None else model
        lr, weight_decay = self.args.learning_rate, self.args.weight_decay
        # λ is multiplied once an epoch: the optimizer counts steps, each over this many of the loader's batches.
        every = math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps)
        if args.optimizer == "adarem":
            self.optimizer = AdaRem(model.parameters(), lr=lr, lam=0.999, decay_every=every, weight_decay=weight_decay)
        else:  # the weights in front of a BatchNorm stay on a sphere; an example of the input finds them
            groups = param_groups(model, images[:1], weight_decay=weight_decay)
            self.optimizer = AdaRemS(groups, lr=lr, lam=0.999, decay_every=every)
        return self.optimizer


set_seed(0)
network = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
trainer = AdaRemTrainer(
    model=ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **network)),
    args=TrainingArguments(
        output_dir=args.out,
        num_train_epochs=8,
        per_device_train_batch_size=64,
        learning_rate=0.4,
        weight_decay=1e-4,
        lr_scheduler_type="cosine",  # after each step
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=train,
    eval_dataset=test,
    compute_metrics=lambda scored: {"accuracy": (scored.predictions.argmax(1) == scored.label_ids).mean().item()},
)
# From a checkpoint: the weights, the state of the optimizer and of the scheduler, the place in the data.
trainer.train(resume_from_checkpoint=args.resume)
print(f"final test accuracy {trainer.evaluate()['eval_accuracy']:.3f}")
