"""The SlowFast video language model: vision tower -> projector -> rows of the language model.

T tokens of a row, P patches of N frames, D the width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from shards.errors import UserError
from train.data.attention_blocks import Blocks
from train.data.tower_plan import TowerPlan
from train.model.attention import NAMES, register_attention, with_mask
from train.model.calls.keywords import refuse_others
from train.model.config import SlowFastConfig
from train.model.encoding import encode
from train.model.generation import SlowFastGenerationMixin
from train.model.inputs import (
    PackedRow,
    PaddedBatch,
    VisualArguments,
    VisualInputs,
    packed_visual,
    padded_only,
    padded_visual,
    row_of,
)
from train.model.loss import PackedOutput, packed_output, supervised_losses
from train.model.memory import LongMemory, MemoryTensors, with_memory
from train.model.pretrained import SlowFastPreTrainedModel
from train.model.projectors import PatchIndexTensors, build_projector
from train.model.vision import OryxVisionTower

register_attention()

OTHERS = ("num_items_in_batch", "output_hidden_states", "output_attentions", "return_dict")
"""Keywords of transformers that `forward` passes on to the language model."""


class SlowFastForConditionalGeneration(SlowFastPreTrainedModel, SlowFastGenerationMixin):
    """Tower, projector and a causal language model of transformers; `forward` is its only entry."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        vision = config.vision_config
        layout = config.layout_config()
        widths = (vision.hidden_size, config.text_config.hidden_size)
        heads = vision.num_attention_heads
        # native resolution, no resize to a square
        self.vision_tower = OryxVisionTower(vision)
        # [P, C] features of patches become [M, D] rows of the decoder
        self.projector = build_projector(
            config.projector, *widths, layout, heads=heads, pool_first=config.pool_before_projection
        )
        self.memory = None
        if layout.memory_tokens:
            self.memory = LongMemory(*widths, layout.memory_tokens, heads)
        # any causal decoder of transformers; `check_packed` has tried it in packed rows
        text = config.text_config
        attention = self.attention_for(text._attn_implementation)
        self.language_model = AutoModelForCausalLM.from_config(text, attn_implementation=attention)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        blocks: Blocks[Tensor] | None = None,
        supervised: Tensor | None = None,
        patches: Tensor | None = None,
        grids: Tensor | None = None,
        slots: PatchIndexTensors | Mapping[str, Tensor] | None = None,
        seconds: Tensor | None = None,
        memory: MemoryTensors | Mapping[str, Tensor] | None = None,
        tower: TowerPlan[Tensor] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | PackedOutput:
        """Logits of a padded batch [B, T], and with `labels` its loss, as transformers has them.

        `labels` are ids of the same length, shifted inside, -100 where nothing is learned; the loss
        is their mean, or their sum by `num_items_in_batch`. `slots` and `memory` are the
        dictionaries that the processor makes. With `blocks` (see `pack_inputs`): `loss` is the
        summed cross entropy of a packed row against `targets`, which stand at the row that predicts
        them; the caller divides it. TypeError for keywords that nothing acts on.
        """
        batch = PaddedBatch(
            ids=input_ids,
            mask=attention_mask,
            positions=position_ids,
            cache=past_key_values,
            embeddings=inputs_embeds,
            labels=labels,
            shown=VisualArguments(patches, grids, slots, seconds, memory, tower),
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            others={name: value for name, value in kwargs.items() if value is not None},
        )
        if blocks is not None:
            refuse_others("forward with `blocks`", padded_only(batch), (), "leave it out")
            visual = packed_visual(batch.shown)
            row = row_of(input_ids, targets, position_ids, blocks, supervised, visual)
            return packed_output(self.packed_losses(row))
        others = batch.others | {"targets": targets, "supervised": supervised}
        refuse_others("forward", others, OTHERS, "leave it out")
        return self.padded_logits(batch)

    def packed_losses(self, row: PackedRow) -> Tensor:
        """The cross entropy of each supervised row of a packed row, fp32 [S]."""
        head = self.get_output_embeddings()
        return supervised_losses(self.hidden(row), head, row.targets, rows=row.supervised)

    def hidden(self, row: PackedRow) -> Tensor:
        """Last hidden states [T, D] of a packed row, its samples isolated from each other."""
        # any other implementation would let samples of a pack see each other
        if self.decoder_attention not in NAMES:
            raise UserError(
                f"packed rows need one of {', '.join(NAMES)}, the decoder attends by "
                f"{self.decoder_attention}, which would mix their samples; call "
                f'set_attn_implementation("{self.config.packed_attention}")'
            )
        rows = self.embed(row.ids, row.visual)
        blocks = row.blocks
        if self.config.packed_attention == "flex":
            blocks = with_mask(blocks)
        # decoders with several kinds of layers take a mask for each kind
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
        """The logits of a padded batch, its loss, and the cache for the tokens that follow."""
        # attentions that nobody computes would come back as None
        self.refuse_attentions(batch.others)
        rows = batch.embeddings
        if rows is not None and batch.shown.patches is not None:
            raise TypeError(
                "forward: give input_ids with `patches`; inputs_embeds hold them already"
            )
        if batch.ids is not None and rows is None:
            rows = self.prompt_rows(batch.ids, batch.shown)
        return self.language_model(
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=batch.cache,
            inputs_embeds=rows,
            labels=batch.labels,
            use_cache=batch.use_cache,
            logits_to_keep=batch.logits_to_keep,
            **batch.others,
        )

    def prompt_rows(self, ids: Tensor, shown: VisualArguments) -> Tensor:
        """Rows of the language model [B, T, D] of ids [B, T] and what they show.

        All ids of a padded batch and of `generate` come through here, so this decides alone whether
        visual inputs go in: where ids have placeholders. ValueError where the two disagree.
        """
        # the first two ids are start and end of a medium, the pads follow
        pads = (self.config.visual_token_ids or [])[2:]
        visual = padded_visual(ids, shown, pads)
        if visual is None:
            return self.get_input_embeddings()(ids)
        return self.embed(ids.flatten(), visual).view(*ids.shape, -1)

    def embed(self, tokens: Tensor, visual: VisualInputs) -> Tensor:
        """Rows of the language model [T, D]: embedded tokens, visual rows in place of their pads.

        tokens int64 [T]. With no patch at all the tower and the projector still run, on zero rows.
        """
        rows = self.get_input_embeddings()(tokens)
        memory, patch_index, plan = visual.memory, visual.patch_index, visual.tower
        # frames beyond the cap pass the tower too
        beyond = visual.patches[:0] if memory is None else memory.patches
        # frames beyond the cap may be many: of them nothing but their averages is kept
        made = encode(
            self.vision_tower, visual.patches, beyond, plan, again=self.memory is not None
        )
        # scattered by position: ids keep their pads, and no row is cut or joined
        shown = self.projector(made.features, plan.frames, patch_index, visual.seconds)
        rows = rows.index_copy(0, patch_index.position, shown.to(rows.dtype))
        if self.memory is None:
            return rows
        assert memory is not None  # `pack_inputs` and the processor always give one
        return with_memory(rows, memory, made.averages, self.memory)
