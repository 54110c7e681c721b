"""Train a CNN on rotated digits. `diff mnist_plain.py mnist_stn.py` shows the lines of a spatial transformer.

python examples/mnist_plain.py                 # scikit-learn's digits
python examples/mnist_plain.py --root data     # MNIST's files in data/, fetched if they are missing
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from stn.lab.data import DISTORTIONS, as_float, load

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", help="folder of MNIST's files; without it, scikit-learn's digits")
parser.add_argument("--steps", type=int, default=1000)
arguments = parser.parse_args()

torch.manual_seed(0)
draw = torch.Generator().manual_seed(0)
data = load("mnist" if arguments.root else "digits", arguments.root, download=True)
distort = DISTORTIONS["r"].apply

network = nn.Sequential(
    nn.Conv2d(1, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 5), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(512, 10),
)  # fmt: skip
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=arguments.steps)

for step in range(arguments.steps):
    index = torch.randint(len(data.train), (128,), generator=draw)
    images, labels = distort(as_float(data.train.images[index]), draw), data.train.labels[index]
    loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % 100 == 99:
        print(f"step {step + 1}: loss {loss.item():.3f}")

network.eval()
with torch.no_grad():
    images = distort(as_float(data.test.images), draw)
    wrong = (network(images).argmax(dim=1) != data.test.labels).float().mean().item()
print(f"{sum(p.numel() for p in network.parameters()):,} parameters, test error {100 * wrong:.2f} %")
