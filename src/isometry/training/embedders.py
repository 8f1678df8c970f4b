"""A decoder language model as an embedder: every token sees every other, mean pooling, vectors of length 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isometry.encoders import load_decoder, tiny_decoder
from isometry.errors import InputError
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

    Raises
    ------
    InputError
        If ``"tiny"`` comes without a tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    if backbone != "tiny":
        decoder = load_decoder(backbone, layers=layers)
        body = DecoderTransformer(decoder.lm, decoder.tokenizer, max_seq_length=max_length)
    elif tokenizer is None:
        raise InputError("A tiny decoder from scratch has no tokenizer; pass one.")
    else:
        body = DecoderTransformer(
            tiny_decoder(len(tokenizer), layers=layers or 2), tokenizer, max_seq_length=max_length
        )
    pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[body, pooling, Normalize()], device="cpu")
