"""AdaRem and AdaRem-S in a plain torch loop, on scikit-learn's digits: python examples/plain_torch.py"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups

EPOCHS = 8

parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", choices=["adarem", "adarem_s"], default="adarem")
parser.add_argument("--out", type=Path, default=Path("checkpoints/plain_torch"), help="folder, one file an epoch")
parser.add_argument("--resume", type=Path, help="checkpoint to continue from")
args = parser.parse_args()

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(digits)
train, test = train_test_split(torch.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
order = torch.Generator()
loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True, generator=order)

model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
)

# λ is multiplied once an epoch: the optimizer counts steps, and an epoch has as many as the loader has batches.
decay_every = len(loader)
if args.optimizer == "adarem":
    optimizer = AdaRem(model.parameters(), lr=0.4, lam=0.999, decay_every=decay_every, weight_decay=1e-4)
else:  # the weights in front of a BatchNorm stay on a sphere; an example of the input finds them
    groups = param_groups(model, images[:1], weight_decay=1e-4)
    optimizer = AdaRemS(groups, lr=0.4, lam=0.999, decay_every=decay_every)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)


def test_accuracy() -> float:
    model.eval()
    with torch.no_grad():
        return (model(images[test]).argmax(1) == labels[test]).float().mean().item()


done = 0
if args.resume:
    checkpoint = torch.load(args.resume)
    done = checkpoint["epochs"]
    for key, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
        part.load_state_dict(checkpoint[key])

args.out.mkdir(parents=True, exist_ok=True)
for epoch in range(done, EPOCHS):
    order.manual_seed(epoch)  # so that a resumed run sees the same batches
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    scheduler.step()
    print(f"epoch {epoch + 1}: last loss {loss.item():.3f}, test accuracy {test_accuracy():.3f}")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save({"epochs": epoch + 1, **state}, args.out / f"epoch{epoch + 1}.pt")
print(f"final test accuracy {test_accuracy():.3f}")
