"""Interpolation kernels

One digit of 28 pixels, turned and magnified twelve times with each kernel.
"""

import matplotlib.pyplot as plt

import stn
from stn.lab.data import load

digit = load("digits").train.images[7:8].float() / 255
warp = stn.Affine.from_parts(angle=0.3, scale=0.7)
modes = ("nearest", "bilinear", "bicubic", "catmull_rom", "bspline", "lanczos3")

figure, axes = plt.subplots(1, 6, figsize=(8, 1.7), layout="constrained")
for ax, mode in zip(axes, modes, strict=True):
    ax.imshow(warp.sample(digit, 240, mode=mode)[0, 0], cmap="gray", vmin=0, vmax=1)
    ax.set_title(mode, fontsize=9)
    ax.axis("off")
plt.show()
