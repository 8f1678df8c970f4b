"""Raw encoders of any size from plain text: masked language modelling of a small BERT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isometry.encoders.backbones import tiny_encoder
from isometry.errors import InputError
from isometry.training.length_batches import LengthBatches
from isometry.training.loop import seeded, train
from isometry.training.wordpiece import train_wordpiece

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

IGNORED = -100


def sentence_model(body: Any, tokenizer: Any, *, pooling: str = "mean", max_tokens: int = 128) -> SentenceTransformer:
    """Join a transformers body and its tokenizer to a ``SentenceTransformer`` with ``"mean"`` or ``"cls"`` pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from isometry.training.fine_tuning import quiet

    with TemporaryDirectory() as folder, quiet():
        body.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        first = Transformer(folder, max_seq_length=max_tokens)
        head = Pooling(first.get_embedding_dimension(), pooling)
        return SentenceTransformer(modules=[first, head], device="cpu").eval()


class MaskedLanguageModel(nn.Module):
    """A body with the BERT prediction head (Devlin et al. 2019): dense, GELU, norm, logits by the token embeddings."""

    def __init__(self, body: Any, *, seed: int = 0) -> None:
        super().__init__()
        self.body = body
        width = body.config.hidden_size
        table = body.get_input_embeddings().weight
        with seeded(seed):
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(table.new_zeros(len(table)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the targets int64 ``[b, t]`` that are not -100."""
        states: Tensor = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        asked = targets != IGNORED
        logits = self.head(states[asked]) @ self.body.get_input_embeddings().weight.T + self.bias
        return nn.functional.cross_entropy(logits, targets[asked])


def mask_tokens(
    ids: Tensor, maskable: Tensor, *, mask_id: int, vocab_size: int, share: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Choose tokens to predict; 80% of them become ``[MASK]``, 10% random, 10% stay (BERT). Draws from torch.

    Parameters
    ----------
    ids, maskable
        int64 and bool ``[b, t]``: tokens, and which may be chosen. At least one is, if there is any.

    Returns
    -------
    tuple
        Altered ids, and targets with -100 where nothing is asked, both int64 ``[b, t]``.
    """
    if not 0 < share <= 1 or not maskable.any():
        raise InputError(f"Masking needs a share in (0, 1] and at least one token that may be masked, got {share}.")
    chance = torch.rand(ids.shape).masked_fill(~maskable, 2.0)
    chosen = chance < max(share, float(chance.min()) + 1e-7)
    fate = torch.rand(ids.shape)
    altered = torch.where(chosen & (fate < 0.8), mask_id, ids)
    drawn = torch.randint(vocab_size, ids.shape)
    return torch.where(chosen & (fate >= 0.9), drawn, altered), torch.where(chosen, ids, IGNORED)


def masked_language_modelling(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 64,
    share: float = 0.15,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[float]:
    """Train the transformer of a sentence model in place to predict masked tokens; return the loss of every step.

    The prediction head is left out of the model. Texts of like length share a batch.
    """
    tokenizer, body = model.tokenizer, model[0].auto_model
    mlm = MaskedLanguageModel(body, seed=seed)
    batches = LengthBatches([len(text) for text in texts], batch_size, seed=seed)

    def loss(module: nn.Module, rows: Sequence[int]) -> Tensor:
        batch = model.preprocess([texts[row] for row in rows])
        ids, attention = batch["input_ids"], batch["attention_mask"]
        specials = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        altered, targets = mask_tokens(ids, attention.bool() & ~specials, mask_id=tokenizer.mask_token_id,
                                       vocab_size=len(tokenizer), share=share)  # fmt: skip
        value: Tensor = module(altered, attention, targets)
        return value

    history = train(mlm, batches, loss, steps=steps, lr=lr, seed=seed, progress=progress)
    body.eval()
    return history


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
    progress: Callable[[int, int | None], None] | None = None,
) -> SentenceTransformer:
    """Train a small BERT from scratch by masked language modelling: a language model never tuned for sentences."""
    tokenizer = train_wordpiece(texts, vocab)
    body = tiny_encoder(len(tokenizer), dim=dim, layers=layers, heads=max(1, dim // 32), seed=seed)
    model = sentence_model(body, tokenizer, pooling=pooling, max_tokens=max_tokens)
    masked_language_modelling(model, texts, steps=steps, batch_size=32, seed=seed, progress=progress)
    return model
