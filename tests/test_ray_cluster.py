"""ray_cluster.yaml is what Ray's own checks accept, and says what a curation cluster must say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).resolve().parent.parent / "ray_cluster.yaml"


def test_ray_accepts_the_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(config)
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(config | {"head_node_type": "nobody"})


def test_the_cluster_is_closed_and_authenticated() -> None:
    text = CLUSTER.read_text()
    assert "RAY_AUTH_MODE=token" in text and "--dashboard-host=127.0.0.1" in text
    assert "0.0.0.0" not in text
    assert "HttpPutResponseHopLimit: 1" in text
