"""Align signals in time

`CPAB(1)` delays and hurries parts of a signal and keeps the order of its samples.
`register` finds the delays.
"""

import matplotlib.pyplot as plt
import torch

import stn

t = stn.grid.lattice((128,))[:, 0]
moving = (
    torch.exp(-((t + 0.5) ** 2) / 0.01) + 2 * torch.exp(-((t - 0.1) ** 2) / 0.03)
)[None, None]
true = stn.CPAB(1, cells=8)(
    0.3 * torch.randn(1, 7, generator=torch.Generator().manual_seed(3))
)
fixed = true.sample(moving, padding_mode="border")
found = stn.register(moving, fixed, stn.CPAB(1, cells=8), loss="mse")

figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
ax.plot(t, moving[0, 0], label="moving", color="tab:gray")
ax.plot(t, fixed[0, 0], label="fixed", color="tab:blue", linewidth=3, alpha=0.5)
ax.plot(t, found.image[0, 0], label="aligned", color="tab:orange", linestyle="--")
ax.legend(frameon=False, labelcolor="tab:gray")
plt.show()
