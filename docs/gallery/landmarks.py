"""Align landmarks

`fit` finds the warp of the least squares between points. Here a similarity puts ones
upright, by two points of each.
"""

import matplotlib.pyplot as plt
import torch

import stn
from stn.lab.data import load

data = load("digits").train
digits = data.images[data.labels == 1][[2, 3, 5, 8]].float()  # (4, 1, 28, 28)
weights = digits.flatten(1) / digits.flatten(1).sum(dim=1, keepdim=True)
points = stn.grid.lattice((28, 28)).flatten(0, 1)
center = weights @ points  # (4, 2)
from_center = points - center[:, None]
covariance = (
    weights[..., None, None] * from_center[..., None] * from_center[..., None, :]
).sum(dim=1)
axis = torch.linalg.eigh(covariance).eigenvectors[..., -1]
axis = axis * axis[:, 1:].sign()  # it points down
marks = torch.stack([center - 0.5 * axis, center + 0.5 * axis], dim=1)  # (4, 2, 2)
targets = torch.tensor([[0.0, -0.5], [0.0, 0.5]]).expand(4, 2, 2)
upright = stn.Similarity().fit(targets, marks).sample(digits, 84)

figure, axes = plt.subplots(2, 4, figsize=(4.4, 2.4), layout="constrained")
for column, digit, mark, look in zip(axes.T, digits, marks, upright, strict=True):
    column[0].imshow(digit[0], cmap="gray")
    column[0].plot(
        *stn.grid.normalized_to_pixel(mark, (28, 28)).T, "o-", color="orange"
    )
    column[1].imshow(look[0], cmap="gray")
    for ax in column:
        ax.axis("off")
plt.show()
