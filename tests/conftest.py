"""Environment of the tests: each process uses one thread, and Triton uses its interpreter where there is no GPU.

One process per core runs the tests, so more threads would only compete. A test of threading sets the number of threads
itself. Triton reads its variable when it is imported.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; processes that the tests start inherit it

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
