"""How every test runs."""

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import settings

settings.register_profile("tests", deadline=None)  # time is the machine's; pytest-timeout bounds it
settings.load_profile("tests")

LONGEST = (
    "test_ray_submit",
    "test_tower_modes",
    "test_deepspeed_engine",
    "test_full_depth",
    "test_ray_jobs",
    "test_build_s3",
    "test_parts",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin, so that processes side by side end together."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """What a program sets for itself ends with the file that ran it."""
    with patch.dict(os.environ):
        yield
