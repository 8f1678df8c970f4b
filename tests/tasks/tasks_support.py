"""Encoders for tests: vectors by text."""

from __future__ import annotations

import numpy as np


class Lookup:
    """Gives each text the vector it was told, the same for both roles unless told otherwise."""

    def __init__(self, vectors, documents=None, space=None):
        self.vectors, self.documents, self.seen = vectors, documents or vectors, {"query": [], "document": []}
        if space is not None:
            self.space = space

    def encode_query(self, inputs, *, prompt=None, batch_size=32):
        self.seen["query"] += inputs
        return np.array([self.vectors[text] for text in inputs], np.float32)

    def encode_document(self, inputs, *, prompt=None, batch_size=32):
        self.seen["document"] += inputs
        return np.array([self.documents[text] for text in inputs], np.float32)
