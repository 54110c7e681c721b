"""Augmentation with key points and boxes

`apply` moves the image, its points and its boxes by the same warp, in pixels. Points
and boxes move by its inverse.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None] / 255
points = torch.tensor([[228.0, 60], [140, 175], [320, 175], [470, 230]])
boxes = torch.tensor([[130.0, 50, 330, 240]])
family = stn.Similarity(aspect=(427, 640))
generator = torch.Generator().manual_seed(4)
theta = family.draw(3, scale=(0.7, 1.2), angle=(-0.5, 0.5), generator=generator)
theta[0] = family.identity()
several = photo.expand(3, -1, -1, -1)
moved = family(theta).apply(image=several, points=points, boxes=boxes)

figure, axes = plt.subplots(1, 3, figsize=(8, 1.9), layout="constrained")
outputs = zip(axes, moved.image, moved.points, moved.boxes, strict=True)
for ax, image, at, (box,) in outputs:
    ax.imshow(image.movedim(0, 2))
    ax.plot(*at.T, "o", color="orange")
    side = box[2:] - box[:2]
    ax.add_patch(Rectangle(box[:2], *side, fill=False, edgecolor="cyan", linewidth=2))
    ax.set(xlim=(0, 640), ylim=(427, 0))
    ax.axis("off")
plt.show()
