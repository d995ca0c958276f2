from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_pool import tiny_manifest


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest over a tiny pool."""
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))
