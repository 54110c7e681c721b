"""Where a warp folds

The determinant of the Jacobian is the source area per output area. Where it is not
positive (red), the warp folds.
"""

import matplotlib.pyplot as plt
import torch

import stn

family = stn.BSpline(shape=(7, 7))
theta = family.draw(
    1, displacement=(-0.8, 0.8), generator=torch.Generator().manual_seed(5)
)
warp = family(theta)
determinant = warp.jacobian_determinant(200)[0]
x, y = (
    warp.points(stn.grid.lattice((33, 33)).flatten(0, 1))[0]
    .unflatten(0, (33, 33))
    .unbind(dim=-1)
)

figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.8), layout="constrained")
left.plot(x, y, color="tab:blue", linewidth=0.7)
left.plot(x.T, y.T, color="tab:blue", linewidth=0.7)
left.set(aspect="equal", ylim=left.get_ylim()[::-1])
shown = right.imshow(determinant, cmap="RdBu", vmin=-2, vmax=2)
right.set_title(
    f"{100 * warp.fold_share(200).item():.1f} % of the pixels fold", fontsize=9
)
figure.colorbar(shown, ax=right)
for ax in (left, right):
    ax.axis("off")
plt.show()
