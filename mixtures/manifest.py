"""The manifest: a recipe resolved over a pool, named by content, enough to draw every sample.

`manifest.json` is canonical JSON of integers and strings; beside it `plan/<sha256>.npy` holds each
source's kept samples sorted by key, and `plan/<sha256>.json` the tokenizer. `manifest_id` is the
sha256 of the JSON without `manifest_id` and `tool`, so it does not depend on how a pool is cut into
parts, where it lies, or which version wrote it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.candidates import Candidate, Cost, Facts, price, read_facts, read_tokenizer
from mixtures.layout import LAYOUT_VERSION, LayoutConfig, View
from mixtures.order import Order
from mixtures.packing import PACK_ALGO
from mixtures.permutation import PERMUTATION_ALGO, ROUNDS
from mixtures.recipe import PackRule, Recipe, Source, check_view
from mixtures.schedule import SCHEDULE_ALGO, Schedule, first_repeat, ranks_of, schedule_of
from mixtures.tables import content_id, kept_table, npy_bytes, npy_name, read_npy, tokenizer_name
from mixtures.text import TEXT_VERSION, TextCodec
from mixtures.verdict import balance, judge
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json, sha256_hex
from shards.index import REFUSED, table_of, write_table
from shards.outcome import Books, Refused
from shards.pool import Pool
from shards.store import Store

MANIFEST_VERSION = 1
DIGESTED_POSITIONS = 65_536
ALGORITHMS: dict[tuple[str, ...], str | int] = {
    ("manifest_version",): MANIFEST_VERSION,
    ("schedule", "algo"): SCHEDULE_ALGO,
    ("permutation", "algo"): PERMUTATION_ALGO,
    ("permutation", "rounds"): ROUNDS,
    ("pack", "algo"): PACK_ALGO,
    ("layout", "version"): LAYOUT_VERSION,
    ("text", "version"): TEXT_VERSION,
}
"""What a manifest names and this version must know; a manifest of another is refused."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A verified manifest and its tables; `blobs` maps names under the folder to bytes."""

    value: dict[str, Any]
    blobs: dict[str, bytes]

    @property
    def manifest_id(self) -> str:
        return str(self.value["manifest_id"])

    @property
    def seed(self) -> int:
        return int(self.value["seed"])

    @property
    def length(self) -> int:
        """Samples in an epoch of the mixture, and what `pack` writes."""
        return int(self.value["length"])

    @property
    def is_finite(self) -> bool:
        """Whether the order ends at `length` (repeat and budget recipes)."""
        return bool(self.value["recipe"]["unit"] != "weight")

    @property
    def max_shard_bytes(self) -> int | None:
        bound: int | None = self.value["recipe"]["max_shard_bytes"]
        return bound

    @cached_property
    def names(self) -> list[str]:
        return [source["name"] for source in self.value["sources"]]

    @cached_property
    def content_ids(self) -> list[str]:
        return [source["content_id"] for source in self.value["sources"]]

    @cached_property
    def tables(self) -> list[NDArray[np.void]]:
        """Per source, its kept samples as rows of ROW, sorted by key."""
        return [
            read_npy(self.blobs[npy_name(source["kept"]["table"])])
            for source in self.value["sources"]
        ]

    @cached_property
    def schedule(self) -> Schedule:
        rule = self.value["schedule"]
        quotas = [source["quota"] for source in self.value["sources"]]
        if not self.is_finite:
            return schedule_of(quotas)
        return ranks_of(read_npy(self.blobs[npy_name(rule["table"])]), quotas)

    @cached_property
    def packs_per_window(self) -> NDArray[np.uint32]:
        """Packs of each window inside `length`; empty in a draft."""
        table = self.value.get("packs_per_window")
        return read_npy(self.blobs[npy_name(table)]) if table else np.empty(0, np.uint32)

    @property
    def pack(self) -> PackRule:
        rule = self.value["pack"]
        return PackRule(tokens=rule["tokens"], patches=rule["patches"], window=rule["window"])

    @property
    def view(self) -> View:
        return View(**self.value["frames"])

    @property
    def layout(self) -> LayoutConfig:
        values = {name: v for name, v in self.value["layout"].items() if name != "version"}
        return LayoutConfig(**values)

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer and template that every length was counted with."""
        rule = self.value["text"]
        name = tokenizer_name(rule["tokenizer_sha256"])
        return TextCodec(self.blobs[name], rule["template"], name)

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read and verify a manifest and the files beside it; the errors name what differs."""
        folder, _, name = str(path).rpartition("/")
        store = Store(folder or "/" * str(path).startswith("/") or ".")
        try:
            value = json.loads(store.get(name))
            if not isinstance(value, dict):
                raise DamagedData(f"{path}: not a manifest; plan again")
            check_version(value, str(path))
            blobs = {wanted: store.get(wanted) for wanted in blob_names(value)}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise DamagedData(f"{path}: not a manifest ({error!r}); plan again") from error
        manifest = cls(value=value, blobs=blobs)
        manifest.verify(str(path))
        return manifest

    def verify(self, where: str) -> None:
        """Raise DamagedData unless id, tables, content ids and drawn order are as written."""
        if identity(self.value) != self.manifest_id:
            raise DamagedData(f"{where}: its content is not what its manifest_id says; plan again")
        for name, data in self.blobs.items():
            digest = name.removeprefix("plan/").partition(".")[0]
            if sha256_hex(data) != digest:
                raise DamagedData(f"{where}: {name} is damaged; restore it, or plan again")
        for source, table in zip(self.value["sources"], self.tables, strict=True):
            if content_id(table) != source["content_id"] or len(table) != source["kept"]["rows"]:
                raise DamagedData(f"{where}: the kept samples of {source['name']!r} differ")
        if order_digest(self) != self.value["order_digest"]:
            raise UserError(f"{where}: this version draws another order; use the one that wrote it")

    def write(self, folder: str) -> None:
        """Tables first, `manifest.json` last."""
        store = Store(folder)
        for name, data in self.blobs.items():
            store.put(name, data)
        store.put("manifest.json", canonical_json(self.value))


def check_version(value: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a manifest whose rules this version does not know."""
    for path, known in ALGORITHMS.items():
        found: Any = value
        for name in path:
            found = found[name]
        if found != known:
            raise UserError(
                f"{where}: {'.'.join(path)} is {found!r}, this version knows {known!r}; "
                "use the version that wrote it, or plan again"
            )


def blob_names(value: Mapping[str, Any]) -> list[str]:
    """Names of the files that a manifest needs beside it."""
    tables = [source["kept"]["table"] for source in value["sources"]]
    tables += [value["packs_per_window"], value["schedule"]["table"]]
    names = [npy_name(table) for table in tables if table]
    return [*dict.fromkeys(names), tokenizer_name(value["text"]["tokenizer_sha256"])]


def identity(value: Mapping[str, Any]) -> str:
    """The manifest_id of a manifest's JSON value."""
    named = {name: v for name, v in value.items() if name not in ("manifest_id", "tool")}
    return sha256_hex(canonical_json(named))


def order_digest(manifest: Manifest) -> str:
    """sha256 of the keys at the first positions: the order as a fact, not as a promise."""
    return sha256_hex(Order(manifest).keys(0, min(manifest.length, DIGESTED_POSITIONS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe over a pool comes to; `tables` maps names under the output folder to bytes."""

    manifest: dict[str, Any]
    tables: dict[str, bytes]
    refusals: list[Refused]
    books: list[Books]

    def write(self, folder: str) -> None:
        """Every refusal and the books, then the plan's tables, `manifest.json` last."""
        store = Store(folder)
        refusals = table_of(REFUSED, (asdict(refusal) for refusal in self.refusals))
        store.put("refused.parquet", write_table(refusals))
        store.put("books.json", canonical_json([asdict(books) for books in self.books]))
        Manifest(value=self.manifest, blobs=self.tables).write(folder)


def build_manifest(recipe: Recipe, pool: Pool, admitted: Mapping[str, str] | None = None) -> Plan:
    """Resolve a recipe over a pool; `admitted` maps sources (and held-out sets) to revisions.

    UserError where the pool lacks what the recipe needs, where nothing of a source is left, or
    where the books do not balance. Reads the pool only.
    """
    _check_profile(recipe, pool)
    tokenizer = read_tokenizer(recipe)
    codec = TextCodec(tokenizer, recipe.text.template, recipe.text.tokenizer)
    facts = read_facts(recipe, pool, codec, admitted)
    costs: dict[tuple[int, str], Cost] = {}

    def too_long(one: Candidate) -> str:
        cost = costs[one.source, one.key] = price(one, facts.clips, recipe, codec)
        for what, wanted, held in (
            ("tokens", cost.tokens, recipe.pack.tokens),
            ("patches", cost.patches, recipe.pack.patches),
        ):
            if wanted > held:
                return f"{wanted} {what}, a pack holds {held}"
        return ""

    verdicts = judge(facts, recipe.allow_licences, too_long)
    tables = _kept_tables(recipe, facts, verdicts, costs)
    blobs = {npy_name(sha256_hex(data)): data for data in map(npy_bytes, tables)}
    blobs[tokenizer_name(codec.tokenizer_sha256)] = tokenizer
    quotas = recipe.quotas([len(table) for table in tables])
    value = _rules(recipe, codec)
    value["sources"] = _sources(recipe, facts, verdicts, tables, quotas)
    _schedule(value, recipe, quotas, tables, blobs)
    drawn = _drawn(Manifest(value=value, blobs=blobs))
    _check_repeats(recipe, tables, drawn)
    books = balance(facts, verdicts, [len(table) for table in tables], drawn)
    _freeze(value, blobs)
    refusals = [*facts.refused, *(verdict for verdict in verdicts if verdict is not None)]
    return Plan(manifest=value, tables=blobs, refusals=refusals, books=books)


def _check_profile(recipe: Recipe, pool: Pool) -> None:
    check_view(recipe.frames, pool.profile, str(recipe.path))
    if recipe.profile != pool.profile:
        raise UserError(
            f"{recipe.path}: profile: the pool {pool.store.url} keeps {pool.profile.to_json()}, "
            f"the recipe wants {recipe.profile.to_json()}; give another --pool, or mend the recipe"
        )


def _kept_tables(
    recipe: Recipe,
    facts: Facts,
    verdicts: Sequence[Refused | None],
    costs: Mapping[tuple[int, str], Cost],
) -> list[NDArray[np.void]]:
    rows: list[list[tuple[str, int, int, int, int]]] = [[] for _ in recipe.sources]
    for one, verdict in zip(facts.candidates, verdicts, strict=True):
        if verdict is None:
            cost = costs[one.source, one.key]
            rows[one.source].append((one.key, cost.tokens, cost.patches, cost.clips, cost.frames))
    for source, found in zip(recipe.sources, rows, strict=True):
        if not found:
            raise UserError(
                f"{recipe.path}: nothing of the source {source.name!r} is left (every sample was "
                "refused or not chosen); remove it, or look into refused.parquet of its build"
            )
    return [kept_table(found) for found in rows]


def _rules(recipe: Recipe, codec: TextCodec) -> dict[str, Any]:
    return {
        "manifest_version": MANIFEST_VERSION,
        "tool": {"name": "slowfast-mix", "version": _tool_version()},
        "recipe": recipe.to_json(),
        "seed": recipe.seed,
        "permutation": {"algo": PERMUTATION_ALGO, "rounds": ROUNDS},
        "pack": {"algo": PACK_ALGO, **asdict(recipe.pack)},
        "frames": asdict(recipe.frames),
        "layout": {"version": LAYOUT_VERSION, **asdict(recipe.layout)},
        "text": {
            "tokenizer_sha256": codec.tokenizer_sha256,
            "template": recipe.text.template,
            "version": TEXT_VERSION,
        },
        "profile": recipe.profile.to_json(),
    }


def _tool_version() -> str:
    try:
        return version("slowfast-mix")
    except PackageNotFoundError:
        return "source tree"


def _sources(
    recipe: Recipe,
    facts: Facts,
    verdicts: Sequence[Refused | None],
    tables: Sequence[NDArray[np.void]],
    quotas: Sequence[int],
) -> list[dict[str, Any]]:
    codes = Counter((v.source, v.code) for v in verdicts if v is not None and v.stage == "plan")
    return [
        {
            "name": source.name,
            "dataset": source.dataset,
            "licence": source.licence,
            "revision": account.revision,
            recipe.unit: _ratio(source),
            "quota": quota,
            "kept": {"rows": len(table), "table": sha256_hex(npy_bytes(table))},
            "content_id": content_id(table),
            "admitted": account.samples - account.samples_refused,
            "not_chosen": {code: n for (name, code), n in codes.items() if name == source.name},
        }
        for source, account, table, quota in zip(
            recipe.sources, facts.accounts, tables, quotas, strict=True
        )
    ]


def _ratio(source: Source) -> str:
    given = source.weight or source.repeat
    return str(source.budget) if given is None else f"{given.numerator}/{given.denominator}"


def _schedule(
    value: dict[str, Any],
    recipe: Recipe,
    quotas: Sequence[int],
    tables: Sequence[NDArray[np.void]],
    blobs: dict[str, bytes],
) -> None:
    """Add schedule and length; the table of a finite schedule is stored, a period is made again."""
    schedule, table = schedule_of(quotas), ""
    if recipe.unit == "weight":
        value["length"] = recipe.length or first_repeat(schedule, [len(t) for t in tables])
    else:
        data = npy_bytes(schedule.source)
        table, value["length"] = sha256_hex(data), schedule.period
        blobs[npy_name(table)] = data
    value["schedule"] = {"algo": SCHEDULE_ALGO, "period": schedule.period, "table": table}


def _drawn(draft: Manifest) -> list[int]:
    """How many positions inside `length` each source has."""
    schedule = draft.schedule
    periods, rest = divmod(draft.length, schedule.period)
    more = np.bincount(schedule.source[:rest], minlength=len(schedule.quotas)).tolist()
    return [periods * quota + n for quota, n in zip(schedule.quotas, more, strict=True)]


def _check_repeats(
    recipe: Recipe, tables: Sequence[NDArray[np.void]], drawn: Sequence[int]
) -> None:
    for source, table, count in zip(recipe.sources, tables, drawn, strict=True):
        if source.max_repeats is not None and count > source.max_repeats * len(table):
            raise UserError(
                f"{recipe.path}: max_repeats: {source.name!r} has {len(table)} samples and would "
                f"be drawn {count} times, more than {source.max_repeats} each; lower its ratio or "
                "`length`, or raise max_repeats"
            )


def _freeze(value: dict[str, Any], blobs: dict[str, bytes]) -> None:
    """Add what only the order knows: packs, totals, the digest of the order; then the id."""
    draft = Manifest(value=dict(value), blobs=blobs)
    order, window = Order(draft), draft.pack.window
    windows = -(-draft.length // window) if draft.is_finite else draft.length // window
    packs = np.array([len(order.window(k)) for k in range(windows)], np.uint32)
    data = npy_bytes(packs)
    blobs[npy_name(sha256_hex(data))] = data
    value["packs"] = int(packs.sum())
    value["packs_per_window"] = sha256_hex(data)
    value["totals"] = {"samples": draft.length} | order.totals("tokens", "frames", "patches")
    value["order_digest"] = order_digest(draft)
    value["manifest_id"] = identity(value)
