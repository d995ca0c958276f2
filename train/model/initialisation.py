"""Fresh weights of the parts that are ours; the language model brings its own."""

from __future__ import annotations

from torch import nn
from transformers import initialization as init

from train.model.projectors import LEARNED_STD, Projector
from train.model.resamplers import QUERY_STD, Perceiver, PerceiverLayer, QFormerLayer
from train.model.vision import Embeddings


def initialise(module: nn.Module, tower: nn.Module) -> None:
    """Draw the weights of one module: those of the tower by Glorot, others as torch does."""
    # Glorot and Bengio (2010), as the public towers are initialised
    if isinstance(module, nn.Linear) and module in set(tower.modules()):
        init.xavier_uniform_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, nn.Linear | nn.LayerNorm):
        module.reset_parameters()
    # the norm of a position vector is about one
    elif isinstance(module, Embeddings):
        init.normal_(module.position_embedding, std=module.position_embedding.shape[1] ** -0.5)
    elif isinstance(module, Projector):
        init.normal_(module.learned, std=LEARNED_STD)
    elif isinstance(module, Perceiver):
        init.normal_(module.queries, std=QUERY_STD)
    # asking and being asked by one map: a query starts by looking around its own place
    elif isinstance(module, PerceiverLayer | QFormerLayer):
        module.cross.ask_as_asked()
