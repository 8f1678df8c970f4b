"""Raw encoders of any size from plain text: masked language modelling of a small BERT."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from isometry.encoders.backbones import tiny_encoder
from isometry.modules.mlm import PredictionHead, masked_batch, masked_loss
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import seeded, train
from isometry.training.wordpiece import train_wordpiece
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def sentence_model(body: Any, tokenizer: Any, *, pooling: str = "mean", max_tokens: int = 128) -> SentenceTransformer:
    """Join a transformers body and its tokenizer to a ``SentenceTransformer`` with ``"mean"`` or ``"cls"`` pooling.

    A body without BERT's pooling layer gets none: its weights would be random ones.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from isometry.modules.quiet import quiet

    with TemporaryDirectory() as folder, quiet():
        body.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        first = Transformer(folder, max_seq_length=max_tokens)
        if getattr(body, "pooler", None) is None and hasattr(first.auto_model, "pooler"):
            first.auto_model.pooler = None
        head = Pooling(first.get_embedding_dimension(), pooling)
        return SentenceTransformer(modules=[first, head], device="cpu").eval()


class RawEncoder(NamedTuple):
    """A language model never tuned for sentences: transformer with pooling, prediction head, losses of its training."""

    model: SentenceTransformer
    head: PredictionHead
    losses: list[float]


def prediction_head(name: str) -> PredictionHead:
    """Load the prediction head of a pretrained masked language model: a folder or hub name of transformers."""
    from transformers import AutoModelForMaskedLM

    from isometry.modules.quiet import quiet

    with quiet():
        return PredictionHead(AutoModelForMaskedLM.from_pretrained(name)).eval()


def masked_language_modelling(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 64,
    share: float = 0.15,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Progress | None = None,
) -> RawEncoder:
    """Train the transformer of a sentence model in place to predict masked words (BERT, Devlin et al. 2019).

    Words are masked whole. The prediction head, whose scores use the token embeddings, is no part of the model and is
    returned beside it. Texts of like length share a batch; they are cut to the model's window.
    """
    from transformers import AutoModelForMaskedLM

    body: Any = model[0].auto_model
    with seeded(seed):
        mlm: Any = AutoModelForMaskedLM.from_config(body.config)
    setattr(mlm, mlm.base_model_prefix, body)
    mlm.tie_weights()
    head, generator = PredictionHead(mlm), torch.Generator().manual_seed(seed)
    batches = LengthBatches([len(text) for text in texts], batch_size, seed=seed)

    def loss(_: nn.Module, rows: Sequence[int]) -> Tensor:
        batch = masked_batch(model.tokenizer, [texts[row] for row in rows], share, model.max_seq_length, generator)
        states = body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return masked_loss(states, batch["labels"], head)

    losses = train(mlm, batches, loss, steps=steps, lr=lr, seed=seed, progress=progress)
    body.eval()
    return RawEncoder(model, head.eval(), losses)


def raw_encoder(
    texts: Sequence[str],
    *,
    vocab: int = 6000,
    dim: int = 128,
    layers: int = 2,
    steps: int = 400,
    pooling: str = "mean",
    max_tokens: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> RawEncoder:
    """Train a small BERT from scratch by masked language modelling: a language model never tuned for sentences."""
    tokenizer = train_wordpiece(texts, vocab)
    body = tiny_encoder(len(tokenizer), dim=dim, layers=layers, heads=max(1, dim // 32), seed=seed)
    model = sentence_model(body, tokenizer, pooling=pooling, max_tokens=max_tokens)
    return masked_language_modelling(model, texts, steps=steps, seed=seed, progress=progress)
