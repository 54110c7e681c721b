"""Every process has one thread, since as many processes as cores run the tests. A test of threads sets their number."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; what the tests start inherits it
