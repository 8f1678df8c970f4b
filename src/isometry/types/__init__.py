"""The values that travel through the library: small frozen dataclasses over numpy, with Arrow at the edge.

Space       which model, width, similarity and transforms a set of vectors belongs to
Embeddings  vectors with ids and their space: single ``[n, d]`` or multi-vector ``[t, d]`` with offsets
Document    a piece of text with an id, a source one can go to, and a payload
Queries     questions: ids and texts, optionally with their embeddings
Hits        ranked answers, columnar, one run of rows per query
Scores      one measured value per unit (query, pair, triple ...): never only a mean
normal_text what two texts share that are the same text
"""

from isometry.types.arrays import FloatArray, IntArray, Json, check_reach, check_vectors, finite, id_array, unit
from isometry.types.documents import Document, Queries
from isometry.types.embeddings import Embeddings, Role
from isometry.types.hits import Hits
from isometry.types.scores import Scores
from isometry.types.space import Similarity, Space
from isometry.types.texts import normal_text

__all__ = [
    "Document",
    "Embeddings",
    "FloatArray",
    "Hits",
    "IntArray",
    "Json",
    "Queries",
    "Role",
    "Scores",
    "Similarity",
    "Space",
    "check_reach",
    "check_vectors",
    "finite",
    "id_array",
    "normal_text",
    "unit",
]
