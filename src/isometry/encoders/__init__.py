"""Things to vectors: text encoders, embedding with a check of what was cut, a cache, streaming to disk.

load, TextEncoder    a sentence-transformers or Hugging Face model by name or folder
LateInteraction      one vector per token (ColBERT), with a head and reducers by role
PixelEncoder         texts drawn as pictures, without a tokenizer
embed                texts to `Embeddings`, counting what did not fit
EmbeddingCache       vectors by space, role and text, in one SQLite file
stream, Manifest     more texts than fit in memory, to Parquet shards, resumable
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "AlignedEncoder": "alignment",
    "Alignment": "alignment",
    "Decoder": "backbones",
    "EmbeddingCache": "cache",
    "Extension": "vocabulary",
    "Fertility": "vocabulary",
    "LateInteraction": "late_interaction",
    "Manifest": "streaming",
    "PixelEncoder": "pixels",
    "TextEncoder": "text",
    "aligned": "alignment",
    "alignment_of": "alignment",
    "candidate_terms": "vocabulary",
    "embed": "embedding",
    "extend_vocabulary": "vocabulary",
    "fertility": "vocabulary",
    "load": "text",
    "load_decoder": "backbones",
    "record_alignment": "alignment",
    "stream": "streaming",
    "tiny_decoder": "backbones",
    "tiny_encoder": "backbones",
}

if TYPE_CHECKING:
    from isometry.encoders.alignment import AlignedEncoder, Alignment, aligned, alignment_of, record_alignment
    from isometry.encoders.backbones import Decoder, load_decoder, tiny_decoder, tiny_encoder
    from isometry.encoders.cache import EmbeddingCache
    from isometry.encoders.embedding import embed
    from isometry.encoders.late_interaction import LateInteraction
    from isometry.encoders.pixels import PixelEncoder
    from isometry.encoders.streaming import Manifest, stream
    from isometry.encoders.text import TextEncoder, load
    from isometry.encoders.vocabulary import Extension, Fertility, candidate_terms, extend_vocabulary, fertility

__all__ = [
    "AlignedEncoder",
    "Alignment",
    "Decoder",
    "EmbeddingCache",
    "Extension",
    "Fertility",
    "LateInteraction",
    "Manifest",
    "PixelEncoder",
    "TextEncoder",
    "aligned",
    "alignment_of",
    "candidate_terms",
    "embed",
    "extend_vocabulary",
    "fertility",
    "load",
    "load_decoder",
    "record_alignment",
    "stream",
    "tiny_decoder",
    "tiny_encoder",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
