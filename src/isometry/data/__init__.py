"""What goes in: files and folders read into documents, and data sets read into schemas.

read, documents, chunk    a file or folder to units, units to documents, a text to chunks
load_set, find, available, fetch    data sets by name
perturb, Dictionary       damaged copies of texts; entries with their definitions
schemas    Retrieval, Pairs, Triplets, Labelled, STS, Graph, Interactions, ImageText, Sequences
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "AttributeBatch": "attribute_examples",
    "AttributeExamples": "attribute_examples",
    "Chunk": "chunking",
    "Dictionary": "dictionaries",
    "DocumentSplit": "triplets",
    "Example": "instructions",
    "Families": "families",
    "Limits": "readers.units",
    "Reading": "readers.units",
    "Row": "converters",
    "SelectorTask": "token_tasks",
    "SetInfo": "sets",
    "Skipped": "readers.units",
    "TableText": "table_text",
    "TopicTask": "token_tasks",
    "Unit": "readers.units",
    "available": "sets",
    "chunk": "chunking",
    "class_rows": "converters",
    "class_triplets": "triplets",
    "confusable_classes": "triplets",
    "describe": "describing",
    "documents": "chunking",
    "draw_examples": "instructions",
    "fact_families": "families",
    "fetch": "fetching",
    "find": "sets",
    "fit_query": "instructions",
    "labelled_sides": "triplets",
    "load_set": "sets:load",
    "pair_triplets": "triplets",
    "perturb": "perturbations",
    "query_text": "instructions",
    "read": "readers.reading",
    "read_dictionary": "dictionaries",
    "read_filtered_set": "vecs",
    "read_rows": "converters",
    "read_vecs": "vecs",
    "retrieval_rows": "converters",
    "row_from": "converters",
    "scored_rows": "converters",
    "serialize_table": "table_text",
    "split_by_document": "triplets",
    "split_sentences": "sentences",
    "text_overlap": "triplets",
    "title_rows": "converters",
    "write_vecs": "vecs",
}

if TYPE_CHECKING:
    from isometry.data import schemas
    from isometry.data.attribute_examples import AttributeBatch, AttributeExamples
    from isometry.data.chunking import Chunk, chunk, documents
    from isometry.data.converters import Row, class_rows, read_rows, retrieval_rows, row_from, scored_rows, title_rows
    from isometry.data.describing import describe
    from isometry.data.dictionaries import Dictionary, read_dictionary
    from isometry.data.families import Families, fact_families
    from isometry.data.fetching import fetch
    from isometry.data.instructions import Example, draw_examples, fit_query, query_text
    from isometry.data.perturbations import perturb
    from isometry.data.readers.reading import read
    from isometry.data.readers.units import Limits, Reading, Skipped, Unit
    from isometry.data.sentences import split_sentences
    from isometry.data.sets import SetInfo, available, find
    from isometry.data.sets import load as load_set
    from isometry.data.table_text import TableText, serialize_table
    from isometry.data.token_tasks import SelectorTask, TopicTask
    from isometry.data.triplets import (
        DocumentSplit,
        class_triplets,
        confusable_classes,
        labelled_sides,
        pair_triplets,
        split_by_document,
        text_overlap,
    )
    from isometry.data.vecs import read_filtered_set, read_vecs, write_vecs

__all__ = [
    "AttributeBatch",
    "AttributeExamples",
    "Chunk",
    "Dictionary",
    "DocumentSplit",
    "Example",
    "Families",
    "Limits",
    "Reading",
    "Row",
    "SelectorTask",
    "SetInfo",
    "Skipped",
    "TableText",
    "TopicTask",
    "Unit",
    "available",
    "chunk",
    "class_rows",
    "class_triplets",
    "confusable_classes",
    "describe",
    "documents",
    "draw_examples",
    "fact_families",
    "fetch",
    "find",
    "fit_query",
    "labelled_sides",
    "load_set",
    "pair_triplets",
    "perturb",
    "query_text",
    "read",
    "read_dictionary",
    "read_filtered_set",
    "read_rows",
    "read_vecs",
    "retrieval_rows",
    "row_from",
    "schemas",
    "scored_rows",
    "serialize_table",
    "split_by_document",
    "split_sentences",
    "text_overlap",
    "title_rows",
    "write_vecs",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
