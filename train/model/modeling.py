"""The SlowFast video language model: vision tower -> projector -> rows of the language model.

T tokens of a row, P patches of N frames, D the width of the language model.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from shards.errors import UserError
from train.data.collate import Pack
from train.model.attention import Blocks, plan_blocks, register_attention, with_mask
from train.model.config import SlowFastConfig
from train.model.loss import supervised_loss
from train.model.memory import LongMemory, MemoryTensors, frame_averages
from train.model.projectors import LEARNED_STD, Projector, SlotTensors, build_projector
from train.model.resamplers import QUERY_STD, Perceiver, PerceiverLayer, QFormerLayer
from train.model.vision import Embeddings, OryxVisionTower, normalised

register_attention()
VISUAL_INPUTS = ("patches", "grids", "slots", "seconds", "memory")


def pack_inputs(pack: Pack, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A pack as the keyword arguments of the model's forward; grids stay on the CPU."""

    def moved(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    slots, memory = pack.slots, pack.memory
    beyond: Any = {f.name: torch.from_numpy(getattr(memory, f.name)) for f in fields(memory)}
    return {
        "input_ids": moved(pack.tokens)[None],
        "labels": moved(pack.labels)[None],
        "position_ids": moved(pack.positions)[None],
        "blocks": plan_blocks(pack.cu_seqlens, device),
        "patches": moved(pack.patches),
        "grids": torch.from_numpy(pack.grids),
        "slots": SlotTensors(*(moved(getattr(slots, name)) for name in SlotTensors._fields)),
        "seconds": moved(pack.times),
        "memory": MemoryTensors(**beyond),
    }


def check_placeholders(pads: Tensor, slots: SlotTensors, memory: MemoryTensors) -> None:
    """ValueError names the sample of a batch whose pads, bool [B, T], and features disagree.

    The processor and the packer cannot disagree; ids that were cut or edited afterwards can.
    """
    batch, length = pads.shape
    at = torch.cat([slots.position.cpu(), memory.position.cpu()]) // max(length, 1)
    wanted = torch.bincount(at.clamp(max=batch - 1), minlength=batch)
    for sample, (given, features) in enumerate(zip(pads.sum(1), wanted, strict=True)):
        if given != features:
            raise ValueError(f"sample {sample}: {given} placeholders, {features} features")


class SlowFastForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Tower, projector and a causal language model of transformers."""

    config_class = SlowFastConfig
    config: SlowFastConfig
    input_modalities: Any = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: Any = ("Block", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        self.vision_tower = OryxVisionTower(vision)
        layout, widths = config.layout_config(), (vision.hidden_size, text.hidden_size)
        heads = vision.num_attention_heads
        self.projector = build_projector(
            config.projector, *widths, layout, heads=heads, pool_first=config.pool_before_projection
        )
        self.memory = None
        if layout.memory_tokens:
            self.memory = LongMemory(*widths, layout.memory_tokens, heads)
        self.language_model = AutoModelForCausalLM.from_config(
            text, attn_implementation=config.packed_attention
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Tower by Glorot, projector as torch does; the language model is initialised by then."""
        if isinstance(module, nn.Linear) and module in set(self.vision_tower.modules()):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, Embeddings):
            init.normal_(module.position_embedding, std=module.position_embedding.shape[1] ** -0.5)
        elif isinstance(module, Projector):
            init.normal_(module.learned, std=LEARNED_STD)
        elif isinstance(module, Perceiver):
            init.normal_(module.queries, std=QUERY_STD)
        elif isinstance(module, PerceiverLayer | QFormerLayer):
            module.cross.ask_as_asked()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def embed(
        self,
        tokens: Tensor,
        patches: Tensor,
        grids: Tensor,
        slots: SlotTensors,
        seconds: Tensor,
        memory: MemoryTensors | None = None,
    ) -> Tensor:
        """Rows of the language model [T, D]: embedded tokens, visual rows in place of their pads.

        tokens int64 [T]; patches uint8 [P, 768] as packs hold them; seconds [N]. With no
        patch at all the tower and the projector still run, on zero rows.
        """
        rows = self.get_input_embeddings()(tokens)
        features = self.vision_tower(normalised(patches, rows), grids)
        visual = self.projector(features, grids, slots, seconds.to(rows.device))
        rows = rows.index_copy(0, slots.position, visual.to(rows.dtype))
        if self.memory is None:
            return rows
        assert memory is not None  # `pack_inputs` always gives one
        averages = frame_averages(self.vision_tower, memory.patches, memory.grids, memory.calls)
        times, clip, position = (
            t.to(rows.device) for t in (memory.times, memory.clip, memory.position)
        )
        made = self.memory(averages, times, clip)
        return rows.index_copy(0, position, made.to(rows.dtype))

    def hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        blocks: Blocks,
        patches: Tensor,
        grids: Tensor,
        slots: SlotTensors,
        seconds: Tensor,
        memory: MemoryTensors | None = None,
    ) -> Tensor:
        """Last hidden states [T, D] of a packed row: ids and positions [1, T], isolated samples."""
        rows = self.embed(input_ids[0], patches, grids, slots, seconds, memory)
        if self.config.packed_attention == "flex":
            blocks = with_mask(blocks)
        kinds = getattr(self.language_model.config, "layer_types", None)
        out = self.language_model.model(
            inputs_embeds=rows[None],
            attention_mask=dict.fromkeys(kinds) if kinds else None,
            position_ids=position_ids,
            blocks=blocks,
            use_cache=False,
        )
        return out.last_hidden_state[0]

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Any = None,
        blocks: Blocks | None = None,
        patches: Any = None,
        grids: Any = None,
        slots: Any = None,
        seconds: Any = None,
        memory: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """With `blocks` (see `pack_inputs`): `loss` is the summed cross entropy of a packed row.

        `labels` stand at the row that predicts them; the caller divides the sum. Without `blocks`:
        logits of a left-padded batch [B, T], as `generate` asks for them; `slots` and `memory` are
        then the dictionaries that the processor makes.
        """
        if blocks is not None:
            visual = (patches, grids, slots, seconds, memory)
            hidden = self.hidden(input_ids, position_ids, blocks, *visual)
            head: Any = self.get_output_embeddings()
            return CausalLMOutputWithPast(loss=supervised_loss(hidden, head.weight, labels[0]))
        if inputs_embeds is None and patches is not None:
            slots = SlotTensors(**{name: t.to(self.device) for name, t in slots.items()})
            memory = MemoryTensors(**memory)
            if self.config.visual_token_ids:
                pads = torch.tensor(self.config.visual_token_ids[2:])
                check_placeholders(torch.isin(input_ids.cpu(), pads), slots, memory)
            rows = self.embed(input_ids.flatten(), patches, grids, slots, seconds, memory)
            inputs_embeds, input_ids = rows.view(*input_ids.shape, -1), None
        return self.language_model(
            input_ids=input_ids if inputs_embeds is None else None,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _expand_inputs_for_generation(self, expand_size: int = 1, *args: Any, **kwargs: Any) -> Any:
        """UserError for several answers to one prompt: the rows of media would not follow."""
        if expand_size != 1 and kwargs.get("patches") is not None:
            raise UserError(
                f"generate: {expand_size} sequences per prompt; give the prompt {expand_size} "
                "times, or ask for one"
            )
        parent: Any = super()
        return parent._expand_inputs_for_generation(expand_size, *args, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: Any, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> Any:
        """Pixels go in with the first step only; afterwards the cache holds what they became."""
        if not is_first_iteration:
            kwargs |= dict.fromkeys(VISUAL_INPUTS)
        kwargs["is_first_iteration"] = is_first_iteration
        parent: Any = super()
        return parent.prepare_inputs_for_generation(input_ids, *args, **kwargs)

    @torch.no_grad()
    def answer(self, pack: Pack, *, eos_token_id: int, **generation: Any) -> list[list[int]]:
        """The ids generated after each sample of the pack, up to the end token, which is left out.

        `generation` is passed on to transformers' `generate`: `max_new_tokens`, `do_sample`, ...
        The ids of `config.visual_token_ids` are never generated.
        """
        inputs = pack_inputs(pack, self.device)
        rows = self.embed(inputs["input_ids"][0], *(inputs[name] for name in VISUAL_INPUTS))
        lengths = (pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist()
        longest = max(lengths)
        batch = torch.stack(
            [pad(part, (0, 0, longest - len(part), 0)) for part in rows.split(lengths)]
        )
        behind = longest - torch.tensor(lengths, device=self.device)
        mask = torch.arange(longest, device=self.device) >= behind[:, None]
        made = self.language_model.generate(
            inputs_embeds=batch,
            attention_mask=mask.long(),
            suppress_tokens=self.config.visual_token_ids,
            eos_token_id=eos_token_id,
            **({"pad_token_id": eos_token_id} | generation),
        )
        return [list(takewhile(lambda id_: id_ != eos_token_id, ids)) for ids in made.tolist()]
