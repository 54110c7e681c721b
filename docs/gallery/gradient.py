"""Descend to a match

The sampler is differentiable in theta. Gradient descent moves the sampled region to the
place from which a crop was taken.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("flower.jpg")).movedim(2, 0)[None] / 255
photo = torch.nn.functional.avg_pool2d(photo, 4)  # (1, 3, 106, 160)
family = stn.Attention()
crop = family(torch.tensor([[0.4, -0.1, 0.1]])).sample(photo, 40)
theta = torch.tensor([[0.55, 0.15, -0.1]], requires_grad=True)
optimizer, path = torch.optim.Adam([theta], lr=0.02), []
for _ in range(60):
    path.append(theta.detach().clone()[0])
    loss = (family(theta).sample(photo, 40, gradient="wide") - crop).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
ax.imshow(photo[0].movedim(0, 2), extent=(-1, 1, 1, -1), aspect="auto")
for k, (s, x, y) in enumerate(path[::6]):
    square = torch.tensor(
        [[-1.0, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]
    ) * s + torch.stack([x, y])
    ax.plot(*square.T, color=plt.cm.autumn(k / 9))
ax.axis("off")
plt.show()
