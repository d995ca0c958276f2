"""The cluster files are what Ray's own checks accept, and say what a curation cluster must say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = ("ray_cluster.yaml", "docs/ray_cluster_gcp.yaml", "docs/ray_cluster_local.yaml")


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_cluster(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(config | {"head_node_type": "nobody"})


@pytest.mark.parametrize("name", FILES)
def test_the_cluster_is_closed_and_authenticated(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "RAY_AUTH_MODE=token" in text and "--dashboard-host=127.0.0.1" in text
    assert "0.0.0.0" not in text


def test_instance_metadata_end_at_the_host() -> None:
    assert (ROOT / FILES[0]).read_text().count("HttpPutResponseHopLimit: 1") == 2


def test_every_variant_sets_its_machines_up_in_the_same_way() -> None:
    texts = [(ROOT / name).read_text() for name in FILES]
    assert len({text[text.index("file_mounts:") :] for text in texts}) == 1
