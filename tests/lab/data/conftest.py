"""A local server for the readers that download."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mirror import Mirror


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    (tmp_path / "served").mkdir()
    with Mirror(tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
