"""A decoder language model as an embedder: its attention, a pooling, vectors of length 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isometry.encoders import load_decoder
from isometry.modules.decoder_transformer import DecoderTransformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase


def decoder_embedder(
    backbone: str | Path,
    *,
    layers: int | None = None,
    max_length: int = 512,
    tokenizer: PreTrainedTokenizerBase | None = None,
    attention: str = "bidirectional",
    pooling: str = "mean",
) -> SentenceTransformer:
    """Return an untrained embedder on a decoder's body, as most embedders of decoders begin (KaLM, QZhou, ...).

    Parameters
    ----------
    backbone
        Name, hub id or folder for `isometry.encoders.load_decoder`, or ``"tiny"``: one from scratch, for experiments.
    layers
        Only the first blocks; None: all of them, of ``"tiny"`` two.
    max_length
        Tokens of a text at most.
    tokenizer
        For ``"tiny"``, which has none of its own.
    attention, pooling
        ``"bidirectional"`` and ``"mean"``, so that every token counts and sees every other, or ``"causal"`` and
        ``"lasttoken"``, as E2Rank and Qwen3-Embedding have it.

    Raises
    ------
    InputError
        If ``"tiny"`` comes without a tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    decoder = load_decoder(backbone, layers=layers, tokenizer=tokenizer)
    body = DecoderTransformer(decoder.lm, decoder.tokenizer, attention=attention, max_seq_length=max_length)
    pool = Pooling(body.get_embedding_dimension(), pooling_mode=pooling)
    return SentenceTransformer(modules=[body, pool, Normalize()], device="cpu")
