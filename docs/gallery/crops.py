"""Crop boxes

`from_boxes` makes the warp of a set of boxes, upright or turned. All crops come from
one call, with gradients to the boxes.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image

import stn

photo = (
    torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None] / 255
)  # (1, 3, 427, 640)
boxes = torch.tensor(
    [[150.0, 60, 330, 240], [420, 190, 600, 370], [40, 240, 220, 420]]
)  # x0, y0, x1, y1
crops = stn.from_boxes(boxes[None], (427, 640)).sample(
    photo, 128, antialias=True
)  # (1, 3, 3, 128, 128)

figure, axes = plt.subplots(
    1, 4, figsize=(7.5, 2), layout="constrained", width_ratios=(1.6, 1, 1, 1)
)
axes[0].imshow(photo[0].movedim(0, 2))
for ax, (x0, y0, x1, y1), crop, color in zip(
    axes[1:], boxes, crops[0], ("orange", "cyan", "red"), strict=True
):
    axes[0].add_patch(
        Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=2)
    )
    ax.imshow(crop.movedim(0, 2))
    ax.set_title(f"from ({x0:.0f}, {y0:.0f})", color=color, fontsize=9)
for ax in axes:
    ax.axis("off")
plt.show()
