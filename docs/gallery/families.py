"""Ten families, one picture

Each family can bend the picture in its own ways. `draw` returns random parameters
within the ranges that you give.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None, :, :, 100:527]
photo = torch.nn.functional.avg_pool2d(photo / 255, 2)  # (1, 3, 213, 213)
ranges = {
    "translation": {"translation": (-0.4, 0.4)},
    "rigid": {"angle": (-0.5, 0.5)},
    "similarity": {"scale": (0.5, 0.8), "angle": (-0.5, 0.5)},
    "anisotropic_scale": {"scale": (0.4, 1.6)},
    "affine": {"matrix": (-1.0, 1.0)},
    "corners": {"offsets": (-0.4, 0.4)},
    "tps": {"offsets": (-0.15, 0.15)},
    "bspline": {"displacement": (-0.3, 0.3)},
    "velocity": {"velocity": (-0.5, 0.5)},
    "cpab": {"velocity": (-0.6, 0.6)},
}
generator = torch.Generator().manual_seed(1)
figure, axes = plt.subplots(2, 5, figsize=(7.5, 3.3), layout="constrained")
for ax, (name, given) in zip(axes.flat, ranges.items(), strict=True):
    family = stn.transforms.family(name)
    warp = family(family.draw(1, generator=generator, **given))
    ax.imshow(warp.sample(photo)[0].movedim(0, 2))
    ax.set_title(name, fontsize=9)
    ax.axis("off")
plt.show()
