"""AdaRem and AdaRem-S by name in timm's factory, on scikit-learn's digits: python examples/with_timm.py"""

import argparse
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.models import resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver
from torch.utils.data import DataLoader, TensorDataset

from adarem.optim import param_groups, register_timm

EPOCHS = 6

parser = argparse.ArgumentParser()
parser.add_argument("--opt", choices=["adarem", "adarems"], default="adarem")
parser.add_argument("--model", default="test_resnet", help="of timm, one that takes images of 32 x 32 pixels")
parser.add_argument("--out", type=Path, default=Path("checkpoints/timm"), help="folder, one file an epoch")
parser.add_argument("--resume", help="checkpoint to continue from")
args = parser.parse_args()

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(digits)
images = torch.nn.functional.interpolate(images, size=32, mode="bilinear")
train, test = train_test_split(torch.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
order = torch.Generator()
loader = DataLoader(TensorDataset(images[train], labels[train]), batch_size=64, shuffle=True, generator=order)

model = timm.create_model(args.model, num_classes=10, in_chans=1)

register_timm()
# λ is multiplied once an epoch: the optimizer counts steps, and an epoch has as many as the loader has batches.
settings = {"lr": 0.4, "weight_decay": 1e-4, "lam": 0.999, "decay_every": len(loader)}
if args.opt == "adarems":  # timm's own groups know no sphere: these have the weights in front of a BatchNorm on one
    settings["param_group_fn"] = lambda m: param_groups(m, images[:1], weight_decay=1e-4)
optimizer = create_optimizer_v2(model, opt=args.opt, **settings)
scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=EPOCHS)


def test_accuracy() -> float:
    model.eval()
    with torch.no_grad():
        return (model(images[test]).argmax(1) == labels[test]).float().mean().item()


done = 0
if args.resume:  # the weights and the optimizer's state; timm's schedulers are functions of the epoch
    done = resume_checkpoint(model, args.resume, optimizer)
    scheduler.step(done)

args.out.mkdir(parents=True, exist_ok=True)
saver = CheckpointSaver(model, optimizer, checkpoint_dir=args.out, max_history=EPOCHS)
for epoch in range(done, EPOCHS):
    order.manual_seed(epoch)  # so that a resumed run sees the same batches
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    scheduler.step(epoch + 1)
    accuracy = test_accuracy()
    print(f"epoch {epoch + 1}: last loss {loss.item():.3f}, test accuracy {accuracy:.3f}")
    saver.save_checkpoint(epoch, metric=accuracy)
print(f"final test accuracy {test_accuracy():.3f}")
