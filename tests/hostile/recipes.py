"""Table Y: recipes as strangers, editors and typing mistakes make them.

Each is refused with a code of the table and a message that holds these words; `GOOD` is planned.
"""

from __future__ import annotations

from mixtures.recipe.strict_yaml import MAX_BYTES

GOOD = """\
name: good
seed: 7
text: {tokenizer: tokenizer.json}
pack_tokens: 256
pack_patches: 4096
pack_window: 32
layout: {slow_frames: 2, timestamps: none}
sources:
  - {name: a, dataset: d, format: llava_json, annotations: a.json, licence: MIT, weight: 0.9}
  - {name: b, dataset: d, format: llava_json, annotations: b.json, licence: MIT, weight: 0.1}
"""


def changed(old: str, new: str) -> bytes:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new).encode()


def weight(text: str) -> bytes:
    return changed("weight: 0.9", f"weight: {text}")


def place(text: str) -> bytes:
    return changed("annotations: a.json", f"annotations: {text}")


def with_line(text: str) -> bytes:
    return f"{GOOD}{text}\n".encode()


MERGE_BOMB = b"a0: &a0 {x: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 9)
)

KEPT = {
    "as it is": GOOD.encode(),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "an exponent is a number": GOOD.replace("0.9", "1e-5").replace("0.1", "1e-5").encode(),
    "1.10 is 1.1": GOOD.replace("0.9", "1.10").replace("0.1", "1.1").encode(),
    "no is a word": changed("name: good", "name: no"),
    "yes is a word": changed("name: good", "name: yes"),
    "on is a word": changed("name: good", "name: on"),
    "a quoted version": changed("name: good", 'name: "1.10"'),
    "a path under the recipe's folder": place("data/./x/../a.json"),
    "an address": place("hf://datasets/org/name/a.json"),
}

_NUMBER = "weight: must be a number above 0"
_PLAIN = "keys must be plain words"
_YAML = "not a plain YAML document"
_OUTSIDE = "is outside the recipe's folder and the current one"
_BANNED = "aliases, anchors, tags and directives are refused"

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "sexagesimal": ("RECIPE_WRONG_TYPE", weight("12:30:45"), _NUMBER),
    "hexadecimal": ("RECIPE_WRONG_TYPE", weight("0x1F"), _NUMBER),
    "date": ("RECIPE_WRONG_TYPE", weight("2024-01-01"), _NUMBER),
    "underscore": ("RECIPE_WRONG_TYPE", weight("1_000"), _NUMBER),
    "not a number": ("RECIPE_WRONG_TYPE", weight(".nan"), _NUMBER),
    "infinite word": ("RECIPE_WRONG_TYPE", weight(".inf"), _NUMBER),
    "octal": ("RECIPE_WRONG_TYPE", weight("017"), _NUMBER),
    "leading zeros": ("RECIPE_WRONG_TYPE", weight("00123"), _NUMBER),
    "a word for a number": ("RECIPE_WRONG_TYPE", weight("yes"), _NUMBER),
    "a mapping for a number": ("RECIPE_WRONG_TYPE", weight("{a: 1}"), _NUMBER),
    "a list for a mapping": ("RECIPE_WRONG_TYPE", b"[1, 2]", "must be a mapping"),
    "duplicate key": (
        "RECIPE_NOT_PLAIN",
        changed("seed: 7", "seed: 7\nseed: 8"),
        "duplicate key 'seed'",
    ),
    "alias": ("RECIPE_NOT_PLAIN", with_line("b: *x"), _BANNED),
    "anchor": ("RECIPE_NOT_PLAIN", changed("seed: 7", "seed: &x 7"), _BANNED),
    "merge key": ("RECIPE_NOT_PLAIN", with_line("frames: {<<: {cap: 4}}"), _PLAIN),
    "merge bomb": ("RECIPE_NOT_PLAIN", MERGE_BOMB, _BANNED),
    "python tag": (
        "RECIPE_NOT_PLAIN",
        with_line("a: !!python/object/apply:os.system [touch canary]"),
        _BANNED,
    ),
    "binary tag": ("RECIPE_NOT_PLAIN", with_line("a: !!binary aGk="), _BANNED),
    "directive": ("RECIPE_NOT_PLAIN", b"%YAML 1.1\n---\n" + GOOD.encode(), _BANNED),
    "a number as key": ("RECIPE_NOT_PLAIN", with_line("1: 2"), _PLAIN),
    "a mapping as key": ("RECIPE_NOT_PLAIN", with_line("{a: 1}: 2"), _PLAIN),
    "2,000 brackets": ("RECIPE_UNREADABLE", b"[" * 2000, "nested deeper than 16"),
    "tab": ("RECIPE_UNREADABLE", with_line("frames:\n\tcap: 4"), _YAML),
    "two documents": ("RECIPE_UNREADABLE", with_line("---\nname: other"), _YAML),
    "empty": ("RECIPE_UNREADABLE", b"", "must be a mapping, not empty"),
    "not UTF-8": ("RECIPE_UNREADABLE", changed("name: good", "name: g").replace(b": g", b": \xff"),
                  "not UTF-8 at byte 6"),
    "4,000 digits": (
        "RECIPE_BAD_SEED",
        changed("seed: 7", f"seed: {'9' * 4000}"),
        f"seed: must be an integer from 0 to 9223372036854775807, not {'9' * 80}...",
    ),
    "5,000 digits": ("RECIPE_UNREADABLE", changed("seed: 7", f"seed: {'9' * 5000}"), _YAML),
    "64 kB and a byte": (
        "RECIPE_TOO_BIG",
        with_line("#" + "x" * (MAX_BYTES - 1 - len(GOOD))),
        f"larger than {MAX_BYTES} bytes",
    ),
    "negative": ("RECIPE_BAD_WEIGHT", weight("-1"), f"{_NUMBER} (1e-12 to 1e12), not -1"),
    "zero": ("RECIPE_BAD_WEIGHT", weight("0"), f"{_NUMBER} (1e-12 to 1e12), not 0"),
    "infinite": ("RECIPE_BAD_WEIGHT", weight("1e400"), f"{_NUMBER} (1e-12 to 1e12), not 1E+400"),
    "ratio given twice": (
        "RECIPE_BAD_WEIGHT",
        weight("1, repeat: 1"),
        "gives ['weight', 'repeat']; every source must give exactly one of weight, repeat, budget",
    ),
    "two kinds of ratio": (
        "RECIPE_BAD_WEIGHT",
        changed("weight: 0.9", "repeat: 1"),
        "must give exactly one of weight, repeat, budget, here 'repeat'",
    ),
    "no ratio": ("RECIPE_BAD_WEIGHT", changed(", weight: 0.9", ""), "gives no ratio"),
    "unknown key": (
        "RECIPE_UNKNOWN",
        changed("seed: 7", "sede: 7"),
        "unknown key 'sede'; did you mean 'seed'?",
    ),
    "unknown key of a source": (
        "RECIPE_UNKNOWN",
        changed("weight: 0.9", "wieght: 1"),
        "sources[0] (a): unknown key 'wieght'; did you mean 'weight'?",
    ),
    "a key like no other": (
        "RECIPE_UNKNOWN",
        changed("slow_frames: 2", "slow_frames: 2, colour: 3"),
        "layout: unknown key 'colour'; the keys here are patch, slow_frames,",
    ),
    "the door of a pool": (
        "RECIPE_UNKNOWN",
        with_line("profile: {door: open}"),
        "profile: unknown key 'door'; the keys here are fps, frame_cap,",
    ),
    "the path of a recipe": ("RECIPE_UNKNOWN", with_line("path: /etc"), "unknown key 'path'"),
    "unknown source of a stage": (
        "RECIPE_UNKNOWN",
        with_line("stages: [{start: 100, weights: {z: 1}}]"),
        "no source is named 'z'; name one of ['a', 'b']",
    ),
    "unknown source of the pool": (
        "RECIPE_UNKNOWN",
        changed("name: a,", "name: z,"),
        "the pool holds no source 'z'",
    ),
    "no sources": (
        "RECIPE_EMPTY",
        (GOOD[: GOOD.index("sources:")] + "sources: []\n").encode(),
        "sources: empty; name at least one source",
    ),
    "a key without a value": (
        "RECIPE_EMPTY",
        with_line("leaks:\nframes: {cap: }"),
        "leaks: is empty; write its value, or remove the key",
    ),
    "an item without a value": (
        "RECIPE_EMPTY",
        with_line("allow_licences: [MIT, ~]"),
        "allow_licences[1]: is empty",
    ),
    "sources left out": (
        "RECIPE_EMPTY",
        GOOD[: GOOD.index("sources:")].encode(),
        "the key 'sources' is missing",
    ),
    "negative seed": (
        "RECIPE_BAD_SEED",
        changed("seed: 7", "seed: -1"),
        "seed: must be an integer from 0 to 9223372036854775807, not -1",
    ),
    "fractional seed": (
        "RECIPE_BAD_SEED",
        changed("seed: 7", "seed: 7.5"),
        "seed: must be an integer from 0",
    ),
    "absolute path": ("RECIPE_PATH_REFUSED", place("/etc/passwd"), f"'/etc/passwd' {_OUTSIDE}"),
    "climbing path": (
        "RECIPE_PATH_REFUSED",
        place("../../../../../../../../etc/passwd"),
        f"etc/passwd' {_OUTSIDE}",
    ),
    "climbing within": ("RECIPE_PATH_REFUSED", place("x/../../../y.json"), _OUTSIDE),
    "home": ("RECIPE_PATH_REFUSED", place("~/.ssh/id_ed25519"), _OUTSIDE),
    "one of a list": ("RECIPE_PATH_REFUSED", place("[a.json, /etc/passwd]"), _OUTSIDE),
    "tokenizer": (
        "RECIPE_PATH_REFUSED",
        changed("tokenizer: tokenizer.json", "tokenizer: /etc/passwd"),
        f"text: tokenizer: '/etc/passwd' {_OUTSIDE}",
    ),
    "media": (
        "RECIPE_PATH_REFUSED",
        place("a.json, media: /etc"),
        f"sources[0] (a): media: '/etc' {_OUTSIDE}",
    ),
    "archive": (
        "RECIPE_PATH_REFUSED",
        place("a.json, archives: [{at: /etc/*}]"),
        f"sources[0] (a): archives: '/etc/*' {_OUTSIDE}",
    ),
    "held-out data": (
        "RECIPE_PATH_REFUSED",
        with_line("held_out: [{name: h, annotations: /etc/passwd}]"),
        f"held_out[0] (h): annotations: '/etc/passwd' {_OUTSIDE}",
    ),
    "file address": (
        "RECIPE_PATH_REFUSED",
        place('"file:///etc/passwd"'),
        "'file:///etc/passwd' is no address",
    ),
    "plain http": (
        "RECIPE_PATH_REFUSED",
        place('"http://169.254.169.254/a.json"'),
        "is no address; give one that starts with hf://, https://, s3://, gs://, or a path",
    ),
}  # fmt: skip

CODES = (
    "WRONG_TYPE NOT_PLAIN UNREADABLE TOO_BIG BAD_WEIGHT UNKNOWN EMPTY BAD_SEED PATH_REFUSED"
).split()
"""Every code of the table, RECIPE_ left off."""
