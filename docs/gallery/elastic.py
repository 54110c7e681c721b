"""Elastic deformation

Random displacements of a B-spline lattice: the usual augmentation of digits and of
medical images.
"""

import matplotlib.pyplot as plt
import torch

import stn
from stn.lab.data import load

digit = load("digits").train.images[5:6].float()  # (1, 1, 28, 28)
family = stn.BSpline(shape=(6, 6))
theta = family.draw(
    12, displacement=(-0.3, 0.3), generator=torch.Generator().manual_seed(0)
)
theta[0] = 0  # the digit itself
looks = family(theta).sample(digit.expand(12, -1, -1, -1), 84, mode="bicubic")

figure, axes = plt.subplots(2, 6, figsize=(7, 2.5), layout="constrained")
for ax, look in zip(axes.flat, looks, strict=True):
    ax.imshow(look[0], cmap="gray")
    ax.axis("off")
plt.show()
