"""Anti-aliasing

A picture that shrinks needs an average over the area of each output pixel. Without it,
fine lines turn into false patterns.
"""

import matplotlib.pyplot as plt

import stn

size = (512, 512)
r = 300 * stn.grid.lattice(size).square().sum(dim=-1)
rings = (0.5 + 0.5 * r.cos())[None, None]  # the lines become finer toward the border
warp = stn.Affine.from_parts(angle=0.2, scale=1.0)
modes = {
    "antialias=False": False,
    "antialias=True": True,
    'antialias="anisotropic"': "anisotropic",
}

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for ax, (title, antialias) in zip(axes, modes.items(), strict=True):
    ax.imshow(
        warp.sample(rings, 96, antialias=antialias)[0, 0], cmap="gray", vmin=0, vmax=1
    )
    ax.set_title(title, fontsize=9)
    ax.axis("off")
plt.show()
