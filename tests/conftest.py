"""Every process has one thread, since as many processes as cores run the tests. A test of threads sets their number.

Where there is no GPU, Triton's interpreter runs the kernels for it. Triton asks for that when it is loaded.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; what the tests start inherits it

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
