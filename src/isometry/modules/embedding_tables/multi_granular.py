"""Product codes whose length follows how often a row is used."""

from __future__ import annotations

from isometry.modules.embedding_tables.product import ProductEmbedding


class MultiGranularEmbedding(ProductEmbedding):
    """Multi-granular quantised embeddings (MGQE; Kang et al., WWW 2020): DPQ with frequency groups.

    The tenth of the rows that occurs most often chooses among all centroids (256 at most), the others among the first
    quarter of the same codebooks, so that their codes are two bits a part shorter.
    """

    hot_share = 0.1
    fewer_bits = 2
