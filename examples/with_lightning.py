"""AdaRem and AdaRem-S in Lightning, on scikit-learn's digits: python examples/with_lightning.py"""

import argparse

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups


class Digits(lightning.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        pixels, digits = load_digits(return_X_y=True)
        images, labels = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(digits)
        train, test = train_test_split(torch.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
        self.train, self.test = (TensorDataset(images[part], labels[part]) for part in (train, test))

    def train_dataloader(self) -> DataLoader:
        # The order depends on the epoch alone, so that a resumed run sees the same batches.
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.trainer.current_epoch))
        return DataLoader(self.train, batch_size=64, sampler=order.tolist())

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=360)


class Classifier(lightning.LightningModule):
    def __init__(self, optimizer: str) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.example_input_array = torch.zeros(1, 1, 8, 8)
        self.network = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
        )

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def on_train_epoch_end(self) -> None:
        self.print(f"epoch {self.current_epoch + 1}: test accuracy {self.trainer.callback_metrics['accuracy']:.3f}")

    def configure_optimizers(self) -> dict[str, object]:
        # λ is multiplied once an epoch: the optimizer counts steps, and Lightning knows how many the loader makes.
        decay_every = self.trainer.estimated_stepping_batches // self.trainer.max_epochs
        if self.optimizer == "adarem":
            optimizer = AdaRem(self.parameters(), lr=0.4, lam=0.999, decay_every=decay_every, weight_decay=1e-4)
        else:  # the weights in front of a BatchNorm stay on a sphere; an example of the input finds them
            groups = param_groups(self.network, self.example_input_array, weight_decay=1e-4)
            optimizer = AdaRemS(groups, lr=0.4, lam=0.999, decay_every=decay_every)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}  # Lightning steps the scheduler once an epoch


parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", choices=["adarem", "adarem_s"], default="adarem")
parser.add_argument("--out", default="checkpoints/lightning", help="folder, one file an epoch")
parser.add_argument("--resume", help="checkpoint to continue from")
args = parser.parse_args()

lightning.seed_everything(0)
checkpoints = ModelCheckpoint(args.out, filename="{epoch}", save_top_k=-1)  # keeps all
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
trainer = lightning.Trainer(
    max_epochs=8, reload_dataloaders_every_n_epochs=1, callbacks=[checkpoints], accelerator="cpu", **quiet
)
model, data = Classifier(args.optimizer), Digits()
# From a checkpoint: the weights, the state of the optimizer and of the scheduler, the epoch.
trainer.fit(model, data, ckpt_path=args.resume)
print(f"final test accuracy {trainer.validate(model, data, verbose=False)[0]['accuracy']:.3f}")
