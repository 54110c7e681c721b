"""Register two photographs

`register` finds the warp between two images. The third picture mixes the fixed and the
aligned image in squares.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = (
    torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None, :, 64:384, 120:440]
    / 255
)
photo = torch.nn.functional.avg_pool2d(photo, 2)  # (1, 3, 160, 160)
true = stn.Affine.from_parts(
    angle=0.25, scale=0.85, translation=torch.tensor([[0.1, -0.05]])
)
fixed = true.sample(photo, padding_mode="border")
found = stn.register(photo, fixed, "affine")
squares = stn.grid.lattice((160, 160)).mul(3).floor().sum(dim=-1) % 2

figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
titles = ("moving", "fixed", "aligned, in squares")
for ax, image, title in zip(
    axes,
    (photo, fixed, torch.where(squares > 0, 0.7 * fixed, found.image)),
    titles,
    strict=True,
):
    ax.imshow(image[0].movedim(0, 2))
    ax.set_title(title, fontsize=9)
    ax.axis("off")
plt.show()
