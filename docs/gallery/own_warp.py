"""A warp of your own

A subclass of `Warp` defines `map`. Sampling, points, composition and the inverse
follow. Here: a swirl.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn


class Swirl(stn.Warp):
    def __init__(self, strength):  # (N,), radians at the center
        self.strength, self.batch, self.ndim = strength, tuple(strength.shape), 2
        self.dtype, self.device = strength.dtype, strength.device

    def map(self, points):
        x, y = points.unbind(dim=-1)
        angle = self.strength[:, None] * torch.exp(-3 * (x**2 + y**2))
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


photo = torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None, :, :, 100:527]
photo = torch.nn.functional.avg_pool2d(photo / 255, 2)
warp = Swirl(torch.tensor([3.0]))
swirled = warp.sample(photo, padding_mode="border")
pictures = photo, swirled, warp.inverse().sample(swirled, padding_mode="border")
figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
titles = "photograph", "swirled", "and back"
for ax, image, title in zip(axes, pictures, titles, strict=True):
    ax.imshow(image[0].movedim(0, 2))
    ax.set_title(title, fontsize=9)
    ax.axis("off")
plt.show()
