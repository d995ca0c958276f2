"""The SlowFast video language model: vision tower -> projector -> rows of the language model.

T tokens of a row, P patches of N frames, D the width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Cache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from train.data.attention_blocks import Blocks
from train.data.tower_plan import TowerPlan
from train.model.attention import register_attention, with_mask
from train.model.config import SlowFastConfig
from train.model.encoding import encode
from train.model.generation import SlowFastGenerationMixin
from train.model.initialisation import initialise
from train.model.inputs import (
    PackedRow,
    PaddedBatch,
    VisualInputs,
    check_placeholders,
    row_of,
    visual_inputs,
)
from train.model.loss import supervised_loss
from train.model.memory import LongMemory, MemoryTensors, with_memory
from train.model.projectors import SlotTensors, build_projector
from train.model.vision import OryxVisionTower

register_attention()


class SlowFastForConditionalGeneration(PreTrainedModel, SlowFastGenerationMixin):
    """Tower, projector and a causal language model of transformers; `forward` is its only entry."""

    config_class = SlowFastConfig
    config: SlowFastConfig
    input_modalities: Any = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: Any = ("Block", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        vision = config.vision_config
        layout = config.layout_config()
        widths = (vision.hidden_size, config.text_config.hidden_size)
        heads = vision.num_attention_heads
        self.vision_tower = OryxVisionTower(vision)
        self.projector = build_projector(
            config.projector, *widths, layout, heads=heads, pool_first=config.pool_before_projection
        )
        self.memory = None
        if layout.memory_tokens:
            self.memory = LongMemory(*widths, layout.memory_tokens, heads)
        self.language_model = AutoModelForCausalLM.from_config(
            config.text_config, attn_implementation=config.packed_attention
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """What transformers calls for each part; the language model is initialised by then."""
        initialise(module, self.vision_tower)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        blocks: Blocks[Tensor] | None = None,
        supervised: Tensor | None = None,
        patches: Tensor | None = None,
        grids: Tensor | None = None,
        slots: SlotTensors | Mapping[str, Tensor] | None = None,
        seconds: Tensor | None = None,
        memory: MemoryTensors | Mapping[str, Tensor] | None = None,
        tower: TowerPlan[Tensor] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """With `blocks` (see `pack_inputs`): `loss` is the summed cross entropy of a packed row.

        `labels` stand at the row that predicts them; the caller divides the sum. Without `blocks`:
        logits of a left-padded batch [B, T], as `generate` asks for them; `slots` and `memory` are
        then the dictionaries that the processor makes.
        """
        shown = (patches, grids, slots, seconds, memory, tower)
        if blocks is not None:
            visual = visual_inputs(*shown, blocks.scatter.device)
            row = row_of(input_ids, labels, position_ids, blocks, supervised, visual)
            return CausalLMOutputWithPast(loss=self.packed_loss(row))
        batch = PaddedBatch(
            ids=input_ids,
            mask=attention_mask,
            positions=position_ids,
            cache=past_key_values,
            embeddings=inputs_embeds,
            visual=visual_inputs(*shown, self.device),
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            others=kwargs,
        )
        return self.padded_logits(batch)

    def packed_loss(self, row: PackedRow) -> Tensor:
        """The summed cross entropy of a packed row, an fp32 scalar."""
        head: Any = self.get_output_embeddings()
        return supervised_loss(self.hidden(row), head.weight, row.labels, rows=row.supervised)

    def hidden(self, row: PackedRow) -> Tensor:
        """Last hidden states [T, D] of a packed row, its samples isolated from each other."""
        rows = self.embed(row.ids, row.visual)
        blocks = row.blocks
        if self.config.packed_attention == "flex":
            blocks = with_mask(blocks)
        kinds = getattr(self.language_model.config, "layer_types", None)
        out = self.language_model.model(
            inputs_embeds=rows[None],
            attention_mask=dict.fromkeys(kinds) if kinds else None,
            position_ids=row.positions[None],
            blocks=blocks,
            use_cache=False,
        )
        return out.last_hidden_state[0]

    def padded_logits(self, batch: PaddedBatch) -> CausalLMOutputWithPast:
        """The logits of a padded batch, and the cache for the tokens that follow."""
        ids = batch.ids
        rows = batch.embeddings
        if rows is None and ids is not None and batch.visual is not None:
            if self.config.visual_token_ids:
                check_placeholders(ids, self.config.visual_token_ids[2:], batch.visual)
            rows = self.embed(ids.flatten(), batch.visual).view(*ids.shape, -1)
        return self.language_model(
            input_ids=ids if rows is None else None,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=batch.cache,
            inputs_embeds=rows,
            use_cache=batch.use_cache,
            logits_to_keep=batch.logits_to_keep,
            **batch.others,
        )

    def embed(self, tokens: Tensor, visual: VisualInputs) -> Tensor:
        """Rows of the language model [T, D]: embedded tokens, visual rows in place of their pads.

        tokens int64 [T]. With no patch at all the tower and the projector still run, on zero rows.
        """
        rows = self.get_input_embeddings()(tokens)
        memory, slots, plan = visual.memory, visual.slots, visual.tower
        beyond = visual.patches[:0] if memory is None else memory.patches
        # frames beyond the cap may be many: of them nothing but their averages is kept
        made = encode(
            self.vision_tower, visual.patches, beyond, plan, again=self.memory is not None
        )
        shown = self.projector(made.features, plan.frames, slots, visual.seconds)
        rows = rows.index_copy(0, slots.position, shown.to(rows.dtype))
        if self.memory is None:
            return rows
        assert memory is not None  # `pack_inputs` and the processor always give one
        return with_memory(rows, memory, made.averages, self.memory)
