"""Low-rank adapters: what is trained, kept, resumed and exported, under every engine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.ranks import keep_until
from tests.support.tiny_model import LAYOUT, mixed_samples, tiny_model
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, TINY, exact, metrics, pool_of
from tests.train.engine.test_engines import rules_of
from train.adapter import Adapter
from train.config import PARTS, Config, Part, Parts, Schedule, Stop, load_config
from train.data.collate import build_pack
from train.data.pack_stream import Stream
from train.engine import adapters, checkpoint
from train.engine.state_files import read_weights
from train.engine.torch_engine import TorchEngine
from train.export import export_any
from train.loop import run
from train.model.inputs import pack_inputs, packed_row
from train.model.parts import part_of
from train.model_folder import build_model, load_saved
from train.sizing.memory import part_parameters
from train.sizing.published_sizes import on_paper
from train.sizing.states import state_bytes
from train.sizing.tracing import trace_step

# of peft, which asks transformers by an old name
OLD_NAME = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
LORA = Adapter(rank=4, alpha=8.0)
STEPS = 6
SHORT = replace(TINY, stop=Stop(steps=2), schedule=Schedule(warmup=1))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def base(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that adapters are added to."""
    out = tmp_path_factory.mktemp("base")
    assert run(SHORT, built, pool_of(built), out) == 0
    return out / "model"


def adapted(base: Path, **more: Any) -> Config:
    """Adapters in tower and decoder, a projector that is trained whole."""
    start = Part(init=str(base), lr=5e-3)
    parts = Parts(
        tower=replace(start, adapter=replace(LORA, targets=("qkv", "fc1"))),
        projector=start,
        decoder=replace(start, adapter=LORA),
    )
    return replace(TINY, parts=parts, stop=Stop(steps=STEPS), save_every=3, **more)


@pytest.fixture(scope="module")
def unbroken(built: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(adapted(base), built, pool_of(built), out) == 0
    return out


def step(out: Path, number: int) -> Path:
    return out / "checkpoints" / f"step-{number:08d}"


def logits(model: Any, built: Path) -> Tensor:
    """Of a pack of the tiny pool."""
    manifest = load_manifest(built)
    pack = next(iter(Stream(manifest, pool_of(built), global_batch=1)))
    row = packed_row(pack)
    with torch.no_grad():
        out: Tensor = model.get_output_embeddings()(model.hidden(row))
        return out


def with_its_adapter(built: Path, base: Path, out: Path) -> Any:
    """The model as the run had it in memory behind its last step."""
    config = adapted(base)
    engine = TorchEngine(config, build_model(config, rules_of(built)[1]))
    engine.load(step(out, STEPS), STEPS)
    return engine.model


def test_an_adapter_learns_and_the_weights_under_it_stay(unbroken: Path, base: Path) -> None:
    found = checkpoint.read(step(unbroken, STEPS))
    saved = dict(read_weights(found.folder))
    kinds = {name.partition(".")[0] for name in saved if ".lora_" not in name}
    assert kinds == {"projector"}
    added = [weight for name, weight in saved.items() if ".lora_B." in name]
    assert len(added) == 2 + 7 and all(weight.abs().max() > 0 for weight in added)
    assert found.frozen.keys() == {"tower", "decoder"}
    assert all(told["source"] == str(base) for told in found.frozen.values())
    size = sum(path.stat().st_size for path in found.folder.glob("state-*"))
    assert size < 13 * sum(weight.numel() for weight in saved.values()) + 20_000


def test_its_digest_is_that_of_the_part_without_it(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    frozen = replace(adapted(base), parts=replace(adapted(base).parts, tower=Part(
        init=str(base), train=False)))  # fmt: skip
    short = replace(SHORT, parts=frozen.parts)
    run(short, built, pool_of(built), tmp_path)
    one, other = (checkpoint.read(step(*at)) for at in ((tmp_path, 2), (unbroken, STEPS)))
    assert one.frozen["tower"] == other.frozen["tower"]


def test_it_is_resumed_bit_for_bit_over_the_same_weights_alone(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(unbroken, tmp_path / "out")
    keep_until(out, 3)
    shutil.rmtree(out / "model")
    assert run(adapted(base), built, pool_of(built), out) == 0
    assert exact(metrics(out)) == exact(metrics(unbroken))
    keep_until(out, 3)
    drawn = replace(adapted(base), parts=replace(adapted(base).parts, tower=Part(
        lr=5e-3, adapter=replace(LORA, targets=("qkv", "fc1")))))  # fmt: skip
    with pytest.raises(UserError, match=r"trained over the tower of .* is another one"):
        run(drawn, built, pool_of(built), out)
    wider = replace(adapted(base), parts=replace(adapted(base).parts, decoder=Part(
        init=str(base), lr=5e-3, adapter=replace(LORA, rank=8))))  # fmt: skip
    with pytest.raises(UserError, match="adapter: rank: saved with 4, this run has 8"):
        run(wider, built, pool_of(built), out)


def test_what_is_computed_again_is_the_same(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    parts = adapted(base).parts
    again = replace(
        parts,
        tower=replace(parts.tower, checkpoint=True),
        decoder=replace(parts.decoder, checkpoint=True),
    )
    run(replace(adapted(base), parts=again), built, pool_of(built), tmp_path)
    assert exact(metrics(tmp_path)) == exact(metrics(unbroken))


@OLD_NAME
def test_what_is_exported_computes_as_what_was_trained(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    trained = logits(with_its_adapter(built, base, unbroken), built)
    merged = load_saved(unbroken / "model").model
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged, built), trained, rtol=0, atol=1e-5)
    start = load_saved(base).model
    assert (logits(start, built) - trained).abs().max() > 1e-2
    # and as adapters alone, which peft puts onto the start
    with patch("train.export.fsync") as fsync:
        count = export_any(step(unbroken, STEPS), tmp_path / "adapter", None, {}, alone=True)
    synced = {call.args[0].name for call in fsync.call_args_list}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} < synced
    held = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert count == sum(tensor.numel() for tensor in held.values())
    assert "- tower: " in (tmp_path / "adapter/README.md").read_text()
    on_start = PeftModel.from_pretrained(start, tmp_path / "adapter")
    alone = logits(on_start.base_model.model, built)
    torch.testing.assert_close(alone, trained, rtol=0, atol=1e-5)
    joined = on_start.merge_and_unload()
    torch.testing.assert_close(logits(joined, built), trained, rtol=0, atol=1e-5)


def test_what_has_no_adapter_is_not_exported_as_one(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained without an adapter; export it without --adapter"):
        export_any(step(base.parent, 2), tmp_path / "adapter", None, {}, alone=True)
    assert not list(tmp_path.iterdir())


@OLD_NAME
def test_an_adapter_on_the_head_acts_in_training_as_in_generation() -> None:
    model = tiny_model(tie_word_embeddings=False)
    pack = build_pack(mixed_samples(), LAYOUT)
    tuned = get_peft_model(model, LoraConfig(target_modules=["lm_head"], init_lora_weights=False))
    own = tuned.base_model.model
    row = packed_row(pack)
    with torch.no_grad():
        scores = own.get_output_embeddings()(own.hidden(row))[row.supervised]
        wanted = cross_entropy(scores, row.targets[row.supervised], reduction="none")
    found = own(**pack_inputs(pack))
    torch.testing.assert_close(found.row_losses, wanted)
    found.loss.backward()
    head: Any = own.get_output_embeddings()
    assert head.lora_A.default.weight.grad.abs().max() > 0


def test_a_dry_run_counts_them_as_they_are(built: Path, base: Path) -> None:
    config = adapted(base, precision="bf16")
    model = build_model(config, rules_of(built)[1])
    held = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        held[part_of(name)] += parameter.numel() * (".lora_" in name)
    paper = on_paper(model.config)
    sizes = adapters.adapter_sizes(paper, config.parts)
    assert sizes == held and sizes["tower"] and sizes["decoder"] and not sizes["projector"]
    own = part_parameters(model.config)
    states = state_bytes(config, own, adapters=sizes)
    trained = own["projector"] + sum(sizes.values())
    assert states["Adam moments"] == 8 * trained and states["gradients"] == 4 * trained
    assert states["weights"] == 2 * (sum(own.values()) + sum(sizes.values()))
    pack = build_pack(mixed_samples(), LAYOUT)
    whole = replace(config, parts=TINY.parts)
    assert trace_step(config, model.config, pack) == trace_step(whole, model.config, pack)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("{targets: [lm_head]}", "parts: decoder: adapter: targets: lm_head gets no adapter"),
        ("{targets: []}", "parts: decoder: adapter: targets: names no layer"),
        ("{dropout: 0.1}", "parts: decoder: adapter: unknown key 'dropout'"),
        ("{rank: 0}", "parts: decoder: adapter: rank: must be"),
        ("{}, train: false", "parts: decoder: adapter: does nothing under `train: false`"),
    ],
)
def test_a_config_that_would_not_do_what_it_says_is_refused(
    tmp_path: Path, adapter: str, said: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"{CONFIG.replace('decoder: {lr: 5e-3}', f'decoder: {{adapter: {adapter}}}')}")
    with pytest.raises(UserError) as raised:
        load_config(path)
    assert said in str(raised.value)


def test_a_layer_that_is_not_there_is_named_with_those_that_are(built: Path) -> None:
    config = replace(TINY, parts=replace(TINY.parts, projector=Part(
        adapter=Adapter(targets=("q_proj",)))))  # fmt: skip
    said = "no linear layer of the projector is called q_proj; there are mlp.0, mlp.2"
    with pytest.raises(UserError, match=said):
        build_model(config, rules_of(built)[1])


def test_without_peft_it_says_what_to_install(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    config = replace(TINY, parts=replace(TINY.parts, decoder=Part(adapter=LORA)))
    with pytest.raises(UserError, match=r"peft is not installed; pip install 'peft>=0\.21'"):
        build_model(config, rules_of(built)[1])
    build_model(TINY, rules_of(built)[1])
