"""Builds in this process: its units one after the other, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mixtures.recipe.load import load_recipe
from pipeline.jobs import collect
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.jobs.workers import Workers
from pipeline.sources import pin
from pipeline.stages.failure_limit import FailureLimit
from shards.pool import Pool
from tests.support import small_world
from tests.support.archives import asks, tarred

ARCHIVES = """
sources:
  - {{name: bad, dataset: d/bad, format: llava_json, annotations: {root}/bad.json, archives: ["{root}/*.tar.gz"], licence: CC0-1.0, max_refused: 0.2, weight: 1}}
  - {{name: good, dataset: d/good, format: llava_json, annotations: {root}/good.json, archives: ["{root}/{shared}.tar.gz"], licence: CC0-1.0, weight: 1}}
"""  # noqa: E501


class Here(Workers):
    """Units one after the other, in this process."""

    def map(
        self,
        function: Callable[[Any], Any],
        units: Iterable[Any],
        _memory: int = 0,
        *,
        on_gpu: bool = False,  # noqa: ARG002
    ) -> Iterator[Any]:
        return map(function, units)

    def each_node(self, _: Callable[[], Any]) -> dict[str, Any]:
        """There is no other machine."""
        return {}


def archived(root: Path, each: int, shared: str) -> Path:
    """Sixteen pictures, `each` to an archive, every other a web page, and a recipe over them.

    `good` names what is no page, in the `shared` archives.
    """
    media = {}
    for number in range(16):
        small_world.picture(root / "x.jpg", number)
        page = f"<!DOCTYPE html><title>{number}</title>".encode()
        media[f"{number:02d}.jpg"] = (root / "x.jpg").read_bytes() if number % 2 else page
    names = sorted(media)
    for start in range(0, 16, each):
        inside = {name: media[name] for name in names[start : start + each]}
        tarred(root / f"{start // each}.tar.gz", inside)
    asks(root / "bad.json", names)
    asks(root / "good.json", names[1::2] if shared == "*" else names[1:each:2])
    text = small_world.RECIPE.partition("sources:")[0] + ARCHIVES
    (root / "recipe.yaml").write_text(text.format(root=root, shared=shared))
    (root / "tokenizer.json").write_bytes(b"")
    return root / "recipe.yaml"


def gathered(recipe_path: Path) -> tuple[FailureLimit, Pool, int]:
    """Read the archives as a build does; also how many of them were read to their end."""
    recipe = load_recipe(recipe_path)
    pool = Pool(str(recipe_path.parent / "pool"), recipe.profile)
    pinned = [pin.pin(source, str(recipe_path)) for source in recipe.sources]
    limit = FailureLimit({source.name: source.max_refused for source in recipe.sources})
    with steps() as bars:
        collect.gather(
            pinned, "decode", Job(pool=pool, workers=Here(), bars=bars, failure_limit=limit)
        )
    return limit, pool, len(pool.receipts("stream"))
