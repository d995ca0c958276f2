"""The order, read once more in plain Python from docs/manifest.md and the files of a manifest.

Nothing of `mixtures.order` or of the sampler is used to read: what differs is a mistake of the page
or of the code. Numbers are Python's own, so that nothing can wrap around in silence.
"""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256
from heapq import heapify, heappop, heappush
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mixtures.manifest.files import load_manifest
from mixtures.manifest.sampler import BatchSampler
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from shards.pool import Pool
from tests.support.made_pool import MadePool, MadeSample, name_of, write_recipe

MASK = (1 << 64) - 1


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def key(*parts: object) -> int:
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return int(sha256(text.encode()).hexdigest()[:16], 16)


def image(v: int, n: int, x: int) -> int:
    """Of v in the permutation of 0..n-1 under a key x."""
    if n == 1:
        return 0
    h = ((n - 1).bit_length() + 1) // 2
    while True:
        left, right = v >> h, v & ((1 << h) - 1)
        for r in range(6):
            round_key = mix((x + r * 0x9E3779B97F4A7C15) & MASK)
            left, right = right, left ^ (mix(right ^ round_key) & ((1 << h) - 1))
        v = (left << h) + right
        if v < n:
            return v


def ranked_by(raw: list[bytes]) -> list[tuple[int, int]]:
    """(first, last) of each; of equal ones the copies number 1, 2, ..."""
    found, copies = [], 0
    for i, one in enumerate(raw):
        copies = copies + 1 if i and raw[i - 1] == one else 0
        last = int.from_bytes(one[8:], "big") ^ (mix(copies) if copies else 0)
        found.append((int.from_bytes(one[:8], "big"), last))
    return found


class Reading:
    """A manifest's order, from its files."""

    def __init__(self, folder: Path) -> None:
        self.value = value = json.loads((folder / "manifest.json").read_bytes())
        kept = [source["kept"] for source in value["sources"]]

        def load(digest: str) -> np.ndarray:
            return np.load(folder / f"plan/{digest}.npy")

        self.tables = [load(each["table"]) for each in kept]
        by = [load(each["joined_by"]) if "join" in value else None for each in kept]
        raw = [t["key"] if b is None else b for t, b in zip(self.tables, by, strict=True)]
        self.ranked_by = [ranked_by([one.tobytes() for one in each]) for each in raw]
        self.finite = value["recipe"]["ratio"] != "weight"
        self.positions: list[tuple[int, int, int]] = []  # (source, row, epoch)
        self.packs: list[list[int]] = []  # positions
        self.windows = 0
        self.visits = [0] * len(kept)
        self.table = self.sources()

    def sources(self) -> list[int]:
        stages, length = self.value["schedule"]["stages"], self.value["length"]
        found: list[int] = []
        for stage, end in zip(stages, [*(s["start"] for s in stages[1:]), length], strict=True):
            shares, visits = stage["shares"], [0] * len(stage["shares"])
            total = sum(shares)
            for m in range(end - stage["start"]):
                due = [
                    (-(-(visits[i] + 1) * total // share), i)
                    for i, share in enumerate(shares)
                    if share and visits[i] * total // share <= m
                ]
                found.append(min(due)[1])
                visits[found[-1]] += 1
        return found

    def draw(self, stop: int) -> None:
        """Positions up to `stop`, as far as there are any."""
        start, length = self.value["schedule"]["stages"][-1]["start"], self.value["length"]
        stop = min(stop, length) if self.finite else stop
        for n in range(len(self.positions), stop):
            at = n if n < length else start + (n - start) % (length - start)
            source = self.table[at]
            epoch, turn = divmod(self.visits[source], len(self.tables[source]))
            self.visits[source] += 1
            self.positions.append((source, self.epoch(source, epoch)[turn], epoch))

    @cache  # noqa: B019
    def epoch(self, source: int, epoch: int) -> list[int]:
        salt = mix(key(self.value["seed"], self.value["sources"][source]["name"]) ^ epoch)
        hashes = [mix(mix(salt ^ first) ^ last) for first, last in self.ranked_by[source]]
        return sorted(range(len(hashes)), key=lambda row: (hashes[row], row))

    def size(self, position: int) -> tuple[int, int]:
        source, row, _ = self.positions[position]
        return int(self.tables[source]["tokens"][row]), int(self.tables[source]["patches"][row])

    def pack_a_window(self) -> bool:
        """The packs of the next window; False at the end of a finite order."""
        rule, w = self.value["pack"], self.windows
        self.draw((w + 1) * rule["window"])
        window = range(w * rule["window"], min((w + 1) * rule["window"], len(self.positions)))
        budgets = (rule["tokens"], rule["patches"])

        def fullness(n: int) -> int:
            return max(s * 65535 // b for s, b in zip(self.size(n), budgets, strict=True))

        packs: list[list[int]] = []
        left: list[list[int]] = []
        for n in sorted(window, key=lambda n: (-fullness(n), n)):
            tokens, patches = self.size(n)
            fits = [p for p, (t, q) in enumerate(left) if t >= tokens and q >= patches]
            if not fits:
                fits = [len(packs)]
                packs.append([])
                left.append(list(budgets))
            chosen = min(fits, key=lambda p: (left[p][0], p))
            packs[chosen].append(n)
            left[chosen] = [left[chosen][0] - tokens, left[chosen][1] - patches]
        salt = key(self.value["seed"], "packs", w)
        order = sorted(range(len(packs)), key=lambda number: (mix(number ^ salt), number))
        self.packs += [sorted(packs[number]) for number in order]
        self.windows += 1
        return bool(packs)

    def ranks(self, s: int, g: int, ranks: int) -> list[list[list[int]]]:
        """The packs of every rank at step s of a global batch of g: the positions of each."""
        while len(self.packs) < (s + 1) * g and self.pack_a_window():
            pass
        step, seed = self.packs[s * g : (s + 1) * g], self.value["seed"]
        places = [step[image(i, len(step), key(seed, "batch", s))] for i in range(len(step))]
        costs = [sum(t + p // 16 for t, p in map(self.size, pack)) for pack in places]
        each, more = divmod(len(places), ranks)
        lanes: list[list[int]] = [[] for _ in range(ranks)]
        waiting = [(0, lane) for lane in range(ranks)]
        heapify(waiting)
        for place in sorted(range(len(places)), key=lambda i: (-costs[i], i)):
            while True:
                cost, lane = heappop(waiting)
                if len(lanes[lane]) < each or more:
                    break
            more -= len(lanes[lane]) == each
            lanes[lane].append(place)
            if len(lanes[lane]) <= each:
                heappush(waiting, (cost + costs[place], lane))
        of_rank = [lanes[image(j, ranks, key(seed, "ranks", s))] for j in range(ranks)]
        return [[places[place] for place in sorted(lane)] for lane in of_rank]


JOIN = "join_by_clip: {max_turns: 6, max_tokens: 150}"
RECIPES: dict[str, tuple[list[str], list[str]]] = {
    "weights": (["weight: 5", "weight: 1.25", "weight: 0.003"], ["length: 400"]),
    "one position a source": (["weight: 1", "weight: 1", "weight: 9"], ["length: 11"]),
    "tokens": (["weight: 1", "weight: 3", "weight: 7"], ["unit: tokens", "length: 9000"]),
    "no length": (["weight: 2", "weight: 3", "weight: 1"], []),
    "stages": (
        ["weight: 2", "weight: 3", "weight: 1"],
        ["length: 300", "stages: [{start: 37, weights: {b: 0}}, {start: 251, weights: {c: 9}}]"],
    ),
    "repeat": (["repeat: 1", "repeat: 2.5", "repeat: 3"], []),
    "budget": (["budget: 70", "budget: 1", "budget: 200"], []),
    "budget of tokens": (["budget: 3000", "budget: 999", "budget: 50"], ["unit: tokens"]),
    "duplicates": (["weight: 1", "weight: 2", "weight: 1"], ["length: 333", "duplicates: keep"]),
    "cap": (["weight: 1", "weight: 1", "weight: 1"], ["length: 99", "max_samples_per_clip: 1"]),
    "join": (["weight: 4", "weight: 1", "weight: 1"], ["length: 300", JOIN]),
    "join, keep, cap": (
        ["repeat: 2", "repeat: 1", "repeat: 1.5"],
        [JOIN, "duplicates: keep", "max_samples_per_clip: 4"],
    ),
    "join copies": (["repeat: 2", "repeat: 1", "repeat: 1"], [JOIN, "canonical_clips: true"]),
}


def some(source: str, count: int, random: Random) -> list[MadeSample]:
    """Conversations over few clips, some twice, some alike over copies, some without a clip."""
    found = []
    for i in range(count):
        clips = random.sample(["x", "x large", "video-y", "video-y large", f"own {source}{i}"], 2)
        text = f"{'which digit ' * random.randint(0, 4)}{source} {i % 29}"
        licence = random.choice(["MIT", "CC-BY 4.0 é"])
        found.append(MadeSample(text, clips[: random.randint(0, 2)], licence))
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, MadeSample]]:
    random, folder = Random(3), tmp_path_factory.mktemp("again") / "pool"
    sources = {name: some(name, n, random) for name, n in (("a", 60), ("b", 33), ("c", 5))}
    pairs = [("x", "x large"), ("video-y", "video-y large")]
    MadePool(sources=sources, pairs=pairs).make(folder)
    return folder, {one.key: one for own in sources.values() for one in own}


@pytest.fixture(params=RECIPES)
def planned(
    request: pytest.FixtureRequest, tmp_path: Path, pool: tuple[Path, dict[str, MadeSample]]
) -> Path:
    ratios, more = RECIPES[request.param]
    recipe = load_recipe(write_recipe(tmp_path, dict(zip("abc", ratios, strict=True)), *more))
    build_manifest(recipe, Pool(str(pool[0]))).write(str(tmp_path))
    return tmp_path


def test_every_rank_sees_what_the_page_says(planned: Path) -> None:
    again, manifest, random = Reading(planned), load_manifest(planned / "manifest.json"), Random(5)
    names = [source["name"] for source in again.value["sources"]]
    for g, ranks in ((1, 1), (4, 3), (7, 7), (5, 8), (24, 5)):
        sampler, last = BatchSampler(manifest, g), again.value["packs"] // g
        for s in [0, 1, *random.sample(range(last + 1), min(last, 3)), last, last + 1, last + 9]:
            told = again.ranks(s, g, ranks)
            for rank in range(ranks):
                wanted = [
                    [(n, names[at], again.tables[at]["key"][row].tobytes().hex(), epoch)
                     for n in pack for at, row, epoch in [again.positions[n]]]
                    for pack in told[rank]
                ]  # fmt: skip
                found = [
                    [(one.position, one.source, one.key, one.epoch) for one in pack]
                    for pack in sampler.batch(s, rank, ranks)
                ]
                assert found == wanted, (s, g, rank)
            assert sampler.has_step(s) == any(told)
            window, first = sampler.place_of(s)
            resumed = BatchSampler(manifest, g)
            resumed.go_on(s, window, first)
            assert resumed.batch(s, 0, ranks) == sampler.batch(s, 0, ranks)


def h(licence: str, clip_ids: list[str]) -> int:
    """What conversations over these clips are joined by."""
    found = mix(key(licence))
    for clip_id in clip_ids:
        found = mix(mix(found ^ int(clip_id[:16], 16)) ^ int(clip_id[16:], 16))
    return found


@pytest.mark.parametrize("planned", [name for name in RECIPES if "join" in name], indirect=True)
def test_what_a_joined_sample_is_ranked_by_is_what_the_page_says(
    planned: Path, pool: tuple[Path, dict[str, MadeSample]]
) -> None:
    again, manifest = Reading(planned), load_manifest(planned / "manifest.json")
    shown = {row["clip"].tobytes().hex(): row["shown"].tobytes().hex() for row in manifest.copies}
    assert bool(shown) == ("canonical" in again.value)
    for i, source in enumerate(again.value["sources"]):
        members: dict[str, list[str]] = {}
        for row in np.load(planned / f"plan/{source['kept']['members']}.npy"):
            of_sample = members.setdefault(row["key"].tobytes().hex(), [])
            of_sample.append(row["member"].tobytes().hex())
        parts: dict[int, list[int]] = {}
        for row, (first, last) in zip(again.tables[i], again.ranked_by[i], strict=True):
            name = row["key"].tobytes().hex()
            conversation = pool[1][members.get(name, [name])[0]]
            named = [name_of(clip) for clip in conversation.clips]
            clip_ids = [shown.get(clip_id, clip_id) for clip_id in named]
            clip_ids = clip_ids if len(set(clip_ids)) == len(clip_ids) else named
            if clip_ids:
                assert first == h(conversation.licence, clip_ids)
                parts.setdefault(first, []).append(last)
            else:
                assert f"{first:016x}" == name[:16]
        assert parts and all(sorted(own) == list(range(len(own))) for own in parts.values())
