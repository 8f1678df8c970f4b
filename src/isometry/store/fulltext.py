"""BM25 over title and text with SQLite's FTS5 (k1 = 1.2, b = 0.75, Porter stems, diacritics folded).

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), eq. 3.15, with FTS5's
floor of 1e-6 under the inverse document frequency.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from isometry.store.filter import Sql


def match_expression(text: str) -> str:
    """An FTS5 expression that matches any word of ``text``, every word quoted so that none is syntax.

    >>> match_expression('state-of-the-art "OR" NOT*')
    '"state" OR "of" OR "the" OR "art" OR "OR" OR "NOT"'
    """
    kept = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return " OR ".join(f'"{word}"' for word in kept.split())


def ranked(db: sqlite3.Connection, text: str, k: int, where: Sql | None) -> list[tuple[str, float]]:
    """Ids and scores of the k best documents and of all that tie with the last, unordered; higher is better."""
    expression = match_expression(text)
    if not expression:
        return []
    query, parameters = "SELECT rowid, bm25(search) FROM search WHERE search MATCH ?", [expression]
    if where is not None:
        # The plus sign keeps the planner from running the match once per allowed row.
        query += f" AND +rowid IN (SELECT d.rowid FROM documents AS d WHERE {where[0]})"
        parameters += where[1]
    return _best(db, db.execute(query, parameters).fetchall(), k)


def _best(db: sqlite3.Connection, found: Sequence[tuple[int, float]], k: int) -> list[tuple[str, float]]:
    if not found:
        return []
    scores = -np.asarray([score for _, score in found], np.float64).astype(np.float32)
    if len(found) > k:
        bar = np.partition(scores, len(found) - k)[len(found) - k]
        keep: Any = np.flatnonzero(scores >= bar)  # with every tie at the bar, so that ids can break it
    else:
        keep = np.arange(len(found))
    rows = [found[i][0] for i in keep]
    query = "SELECT d.rowid, d.id FROM json_each(?) AS j CROSS JOIN documents AS d ON d.rowid = j.value"
    ids = dict(db.execute(query, (json.dumps(rows),)))
    return [(ids[row], float(scores[i])) for row, i in zip(rows, keep.tolist(), strict=True)]
