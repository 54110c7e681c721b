"""Read, change, write back

`write` is the opposite of `sample`: it puts patches into an image where the warp read
them. Other pixels stay, bit for bit.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("flower.jpg")).movedim(2, 0)[None] / 255
boxes = torch.tensor(
    [[180.0, 200, 200, 150, 0.4], [440, 230, 190, 190, -0.6]]
)  # center, size, angle
warp = stn.from_boxes(boxes[None], (427, 640), format="cxcywha")
looks = warp.sample(photo, 200)  # (1, 2, 3, 200, 200)
edited = warp.write(1 - looks, onto=photo)

figure, axes = plt.subplots(
    1, 4, figsize=(8, 1.8), layout="constrained", width_ratios=(1.5, 1, 1, 1.5)
)
for ax, image in zip(axes, (photo[0], *looks[0], edited[0]), strict=True):
    ax.imshow(image.movedim(0, 2))
    ax.axis("off")
plt.show()
