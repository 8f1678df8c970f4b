"""Filtered nearest-neighbour search: attributes, predicates, and the methods of the literature behind one interface.

>>> import numpy as np
>>> from isometry.indexes.filtered import Attributes, Equals, PreFilter
>>> items = Attributes([{"lang": "de"}, {"lang": "en"}, {"lang": "de"}])
>>> PreFilter.build(np.eye(3), items).search(np.array([0.1, 1.0, 0.2]), Equals("lang", "de"), k=5).ids.tolist()
[2, 0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

_HOMES = {
    "UNG": "ung",
    "Acorn": "acorn",
    "And": "predicates",
    "Attributes": "attributes",
    "Between": "predicates",
    "Contains": "predicates",
    "Equals": "predicates",
    "Everything": "predicates",
    "FilteredIndex": "filtered_index",
    "FilteredVamana": "filtered_vamana",
    "Found": "filtered_index",
    "IVFBitmap": "baselines",
    "InlineHNSW": "baselines",
    "Not": "predicates",
    "Or": "predicates",
    "Planned": "baselines",
    "PostFilter": "baselines",
    "PreFilter": "baselines",
    "Predicate": "predicates",
    "Rows": "predicates",
    "SeRF": "serf",
    "StitchedVamana": "filtered_vamana",
    "Vamana": "vamana",
    "contains_all": "predicates",
    "overlaps": "predicates",
}

if TYPE_CHECKING:
    from isometry.indexes.filtered.acorn import Acorn
    from isometry.indexes.filtered.attributes import Attributes
    from isometry.indexes.filtered.baselines import InlineHNSW, IVFBitmap, Planned, PostFilter, PreFilter
    from isometry.indexes.filtered.filtered_index import FilteredIndex, Found
    from isometry.indexes.filtered.filtered_vamana import FilteredVamana, StitchedVamana
    from isometry.indexes.filtered.predicates import (
        And,
        Between,
        Contains,
        Equals,
        Everything,
        Not,
        Or,
        Predicate,
        Rows,
        contains_all,
        overlaps,
    )
    from isometry.indexes.filtered.serf import SeRF
    from isometry.indexes.filtered.ung import UNG
    from isometry.indexes.filtered.vamana import Vamana

__all__ = [
    "UNG",
    "Acorn",
    "And",
    "Attributes",
    "Between",
    "Contains",
    "Equals",
    "Everything",
    "FilteredIndex",
    "FilteredVamana",
    "Found",
    "IVFBitmap",
    "InlineHNSW",
    "Not",
    "Or",
    "Planned",
    "PostFilter",
    "PreFilter",
    "Predicate",
    "Rows",
    "SeRF",
    "StitchedVamana",
    "Vamana",
    "contains_all",
    "overlaps",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
