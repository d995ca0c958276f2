"""The card of an exported dataset: licences, and a datasheet (Gebru et al., arXiv 1803.09010)."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from mixtures.manifest.contents import Choices, Contents
from mixtures.manifest.manifest import Manifest

Licences = dict[str, dict[str, int]]
"""Source -> licence -> samples."""
KNOWN = frozenset(
    "apache-2.0 mit bsd-3-clause cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 "
    "cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 cc-by-nd-4.0 odc-by pddl".split()
)
"""SPDX identifiers, in lower case, that are licences of the hub as well."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
READ = """\
```python
from datasets import load_dataset

samples = load_dataset("FOLDER OR NAME", split="train", streaming=True)
```

`images` holds the frames of all `clips` of a sample back to back, as many of each clip as it has
`pts`: presentation times in units of `time_base` seconds. A turn's `media` are pairs (clip, offset
into its text); `loss` is 1 of an answer that is to be learned. It needs `datasets` 4 or newer."""


def card(manifest: Manifest, licences: Licences, data_files: str) -> str:
    """README.md of the dataset whose Parquet files these are."""
    contents = manifest.contents
    total = sum(sum(own.values()) for own in licences.values())
    head = yaml.safe_dump(_head(contents, licences, data_files, total), sort_keys=False)
    parts = {
        "": f"Manifest `{contents.manifest_id}`, {total:,} conversations, each once.",
        "Reading it": READ,
        "Composition": _composition(contents, licences),
        "Licences": _licences(licences),
        "Collection": COLLECTION,
        "Preprocessing": _preprocessing(contents),
        "Uses": USES,
        "Distribution and maintenance": MAINTENANCE,
    }
    told = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in parts.items())
    return f"---\n{head}---\n\n# {contents.recipe.name}\n\n{told}\n"


COLLECTION = """\
Each source is a published dataset at the revision above; `record` names the entry of its
annotations. Media are its own, decoded and encoded anew as JPEG. Who made the annotations and the
media, and how, its publisher says: see the dataset that `dataset` names."""
USES = """\
Training and evaluating models that see images and videos. The mixture's ratio and order are not in
these files: the manifest has them. What the sources hold of people, bias and errors is here too."""
MAINTENANCE = """\
A licence covers what its publisher could give: rights of those who made the media, or are seen in
them, may go further. Whoever passes this on answers for that, and for take-downs: put them into the
recipe's `exclude` file, plan again, and export again."""


def _head(contents: Contents, licences: Licences, data_files: str, total: int) -> dict[str, object]:
    """What the hub reads of a card."""
    names = {name.lower() for own in licences.values() for name in own}
    (only,) = names if len(names) == 1 else ("",)
    known = {"license": only if only in KNOWN else "other"}
    if only not in KNOWN:
        known["license_name"] = "of-each-source"
    kinds = ["image-text-to-text", "video-text-to-text"]
    return {
        **known,
        "pretty_name": contents.recipe.name,
        "task_categories": kinds,
        "size_categories": [next((said for most, said in SIZES if total < most), "n>1M")],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": data_files}]}
        ],
    }


def _table(header: str, rows: list[str]) -> str:
    columns = header.count("|") + 1
    return "\n".join([f"| {header} |", "|" + "---|" * columns, *(f"| {row} |" for row in rows)])


def _composition(contents: Contents, licences: Licences) -> str:
    rows = []
    for source in contents.sources:
        here = sum(licences.get(source.name, {}).values())
        # admitted, and neither refused by the recipe nor here: its media could not be decoded
        undecoded = source.admitted - sum(source.not_chosen.values()) - here
        rows.append(
            f"{_cell(source.name)} | {_cell(source.dataset)} | `{source.revision[:12]}` | "
            f"{source.admitted} | {undecoded} | {_counted(source.not_chosen)} | {here}"
        )
    return _table("source | dataset | revision | admitted | not decoded | not chosen | here", rows)


def _licences(licences: Licences) -> str:
    rows = [
        f"{_cell(source)} | {_cell(name) or 'not stated'} | {count}"
        for source, own in licences.items()
        for name, count in sorted(own.items())
    ]
    return "As its publishers state them, by sample (`licence`).\n\n" + _table(
        "source | licence | samples", rows
    )


def _preprocessing(contents: Contents) -> str:
    """What was kept of media, and which samples were left out, as the manifest says it."""
    profile = ", ".join(f"{name} {value}" for name, value in contents.profile.to_json().items())
    lines = [f"Frames as the pool keeps them ({profile}).", *_choices(contents.recipe)]
    return "\n".join(f"- {_cell(line)}" for line in lines)


def _choices(recipe: Choices) -> list[str]:
    choices = {
        "Duplicates": "one of each is kept" if recipe.duplicates == "refuse" else recipe.duplicates,
        "Held out": ", ".join(recipe.held_out),
        "Leak index": recipe.leaks.index if recipe.leaks else "",
        "Near-duplicate texts": recipe.near_text or "",
        "Licences allowed": ", ".join(recipe.allow_licences or ()),
        "Take-downs": f"{recipe.exclude.entries} entries" if recipe.exclude else "",
        "Filters": "; ".join(
            f"{source}: {', '.join(conditions)}" for source, conditions in recipe.filters.items()
        ),
    }
    return [f"{name}: {said}." for name, said in choices.items() if said]


def _counted(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in codes.items()) or "0"


def _cell(text: str) -> str:
    """Names of strangers as a cell: no markup, no further column, one line."""
    plain = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>|#" else sign for sign in plain)
