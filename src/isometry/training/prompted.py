"""Fine-tuning a decoder as an embedder that reads an instruction and worked examples before each query.

As in bge-en-icl and LG-ANNA-Embedding (arXiv:2506.07438): causal attention, the embedding is the state at the closing
token, low-rank adapters, batches of one task, and for each query a random number of examples taken from other rows of
its batch. Passages are read bare, so their vectors do not depend on examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.data.instructions import Example, draw_examples, fit_query
from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.modules.attention_mask import run
from isometry.modules.pooling.plain import last_pool
from isometry.negatives.sampling import DistinctBatches
from isometry.objectives.info_nce import InfoNCE
from isometry.training.adapters import add_lora, merge_lora
from isometry.training.loop import train
from isometry.types import FloatArray
from isometry.types.progress import Progress

if TYPE_CHECKING:
    from isometry.encoders.backbones import Decoder


class PromptedEmbedder:
    """A decoder as an embedder of instructed queries and bare passages.

    Parameters
    ----------
    decoder
        Body and tokenizer; its end-of-sequence token, or else its separator, closes every text.
    task
        The instruction.
    max_tokens
        Longest text, the closing token included; see `isometry.data.fit_query` for what is left out of longer prompts.
    """

    def __init__(self, decoder: Decoder, task: str, *, max_tokens: int = 512) -> None:
        ends = [decoder.tokenizer.eos_token_id, decoder.tokenizer.sep_token_id]
        self._end = next((token for token in ends if token is not None), None)
        if self._end is None:
            raise InputError("The tokenizer has neither an end-of-sequence nor a separator token to end texts with.")
        self.decoder, self.task, self.max_tokens = decoder, task, max_tokens

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Characters of each token of a text."""
        found = self.decoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(start, end) for start, end in found["offset_mapping"]]

    def prompt(self, query: str, examples: Sequence[Example] = ()) -> str:
        """Return a query with its instruction and as many of the examples as fit, the last ones first."""
        room = self.max_tokens - 1
        return fit_query(self.task, query, spans=self.spans, max_tokens=room, examples=examples)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as they are, normalised ``[n, d]``, with gradient."""
        if not len(texts):
            raise EmptyInput("There is no text to embed.")
        tokenizer = self.decoder.tokenizer
        closing = self._end
        rows = [
            tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"][: self.max_tokens - 1] for t in texts
        ]
        longest = max(len(row) for row in rows) + 1
        ids = torch.tensor([[closing] * (longest - len(row) - 1) + row + [closing] for row in rows])
        mask = torch.tensor([[0] * (longest - len(row) - 1) + [1] * (len(row) + 1) for row in rows])
        device = next(self.decoder.body.parameters()).device
        states = run(self.decoder.body, mask.to(device), input_ids=ids.to(device))
        return normalize(last_pool(states, mask.to(device)), dim=-1)

    def encode(self, texts: Sequence[str], *, batch_size: int = 16) -> FloatArray:
        """Embed texts as they are, float32 ``[n, d]``, without gradient."""
        self.decoder.lm.eval()
        with torch.no_grad():
            parts = [self(texts[i : i + batch_size]) for i in range(0, max(len(texts), 1), batch_size)]
        vectors: FloatArray = torch.cat(parts).float().cpu().numpy()
        return vectors


def train_prompted(
    embedder: PromptedEmbedder,
    queries: Sequence[str],
    responses: Sequence[str],
    *,
    steps: int,
    batch_size: int = 8,
    most: int = 5,
    lr: float = 1e-4,
    temperature: float = 0.02,
    rank: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Train an embedder in place by low-rank adapters, merged at the end; return the loss of every step.

    Parameters
    ----------
    queries, responses
        Rows of one task; in a batch no text comes twice.
    most
        Each query gets ``0 .. most`` examples from the other rows of its batch.
    rank
        Of the adapters; alpha is twice as much.

    Raises
    ------
    DimensionMismatch
        If there is not one response for each query.
    MissingExtra
        If peft is not installed.
    """
    if len(queries) != len(responses):
        raise DimensionMismatch(f"Each query needs a response; got {len(queries)} and {len(responses)}.")
    rng, objective = np.random.default_rng(seed), InfoNCE(temperature=temperature)
    sampler = DistinctBatches([{q, r} for q, r in zip(queries, responses, strict=True)], batch_size, seed=seed)

    def loss(_: nn.Module, rows: list[int]) -> Tensor:
        asked, answers = [queries[i] for i in rows], [responses[i] for i in rows]
        prompts = [
            embedder.prompt(query, draw_examples(asked, answers, row, most=most, rng=rng))
            for row, query in enumerate(asked)
        ]
        return objective.compute_loss_from_embeddings([embedder(prompts), embedder(answers)])

    add_lora(embedder.decoder.lm, r=rank, alpha=2 * rank, dropout=0.0, seed=seed)
    history = train(embedder.decoder.lm, sampler, loss, steps=steps, lr=lr, seed=seed, progress=progress)
    merge_lora(embedder.decoder.lm)
    return history
