"""Made-up facts with known difficulty: most stand alone, some come in families that differ in one attribute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError
from isometry.types import IntArray

# What a document calls a thing, and what a query does: who would match them must know what they mean.
ATTRIBUTES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("Anna", "baker"), ("Boris", "tailor"), ("Clara", "surgeon"), ("David", "farmer"), ("Elena", "judge"),
     ("Felix", "barber"), ("Greta", "pilot"), ("Hassan", "plumber"), ("Ingrid", "dentist"), ("Jorge", "butcher"),
     ("Keiko", "painter"), ("Lars", "sailor")),
    (("red", "blood"), ("green", "grass"), ("blue", "sky"), ("yellow", "lemon"), ("black", "coal"), ("white", "snow"),
     ("purple", "plum"), ("orange", "carrot"), ("brown", "chestnut"), ("grey", "ash"), ("pink", "flamingo"),
     ("golden", "honey")),
    (("bicycle", "pedals"), ("piano", "keys"), ("lamp", "bulb"), ("carpet", "fringes"), ("camera", "lens"),
     ("boat", "oars"), ("clock", "hands"), ("table", "drawers"), ("violin", "strings"), ("tent", "poles"),
     ("sofa", "cushions"), ("kettle", "spout")),
    (("Paris", "France"), ("Lima", "Peru"), ("Oslo", "Norway"), ("Cairo", "Egypt"), ("Tokyo", "Japan"),
     ("Boston", "America"), ("Madrid", "Spain"), ("Delhi", "India"), ("Sydney", "Australia"), ("Vienna", "Austria"),
     ("Nairobi", "Kenya"), ("Toronto", "Canada")),
    (("January", "first"), ("February", "second"), ("March", "third"), ("April", "fourth"), ("May", "fifth"),
     ("June", "sixth"), ("July", "seventh"), ("August", "eighth"), ("September", "ninth"), ("October", "tenth"),
     ("November", "eleventh"), ("December", "twelfth")),
)  # fmt: skip
NUMBERS = 3  # of four digits
MOST = 10**6
DOCUMENT = "In {4} {0} sold a {1} {2}, lot {5}, at stall {6} of the market in {3} for {7} dollars."
QUERY = "what the {0} got rid of: the colour of {1}, with {2}, from {3}, {4} month, {7} paid, place {6}, number {5}"


@dataclass(frozen=True, eq=False)
class Families:
    """Queries and documents, row i of one about row i of the other; ``family`` is -1 where a fact stands alone.

    A query calls nothing by the name the document has for it.
    """

    queries: list[str]
    documents: list[str]
    family: IntArray

    def siblings(self, row: int) -> list[int]:
        """Return the other rows of a row's family."""
        if self.family[row] < 0:
            return []
        return [int(other) for other in np.flatnonzero(self.family == self.family[row]) if other != row]


def fact_families(n: int, *, share: float = 0.2, size: int = 4, seed: int = 0) -> Families:
    """Make n different facts, a share of them in families of near duplicates.

    Parameters
    ----------
    n
        Facts, at most a million.
    share
        Share in families, rounded to whole families; these come first.
    size
        Facts of a family, 2 to 12: alike but for one attribute.
    seed
        Of everything random.

    Examples
    --------
    >>> facts = fact_families(10, share=0.4, size=2)
    >>> facts.family.tolist()
    [0, 0, 1, 1, -1, -1, -1, -1, -1, -1]
    """
    if not 1 <= n <= MOST or not 0 <= share <= 1 or not 2 <= size <= 12:
        raise InputError(f"Facts need 1 <= n <= {MOST}, 0 <= share <= 1 and 2 <= size <= 12; {n}, {share}, {size}.")
    rng = np.random.default_rng(seed)
    sizes = np.array([12] * len(ATTRIBUTES) + [9000] * NUMBERS)
    families = round(n * share / size)
    known: dict[tuple[int, ...], int] = {}
    while len(known) < families * size:
        fact, varied = rng.integers(sizes), int(rng.integers(len(sizes)))
        values = rng.permutation(12)[:size]
        if varied >= len(ATTRIBUTES):
            values = _near(int(fact[varied]), rng)[:size]
        kin = [tuple(int(v if i == varied else x) for i, x in enumerate(fact)) for v in values]
        if known.keys().isdisjoint(kin):
            known |= dict.fromkeys(kin, len(known) // size)
    while len(known) < n:
        known.setdefault(tuple(int(x) for x in rng.integers(sizes)), -1)
    documents, queries = (
        [form.format(*(ATTRIBUTES[i][x][side] if i < len(ATTRIBUTES) else 1000 + x for i, x in enumerate(fact)))
         for fact in known]
        for side, form in enumerate((DOCUMENT, QUERY))
    )  # fmt: skip
    return Families(queries, documents, np.array(list(known.values()), np.int64))


def _near(number: int, rng: np.random.Generator) -> IntArray:
    """Return a number and others that differ from it in one digit but the first, in random order, int64 ``[12]``."""
    others = [number + (digit - number // power % 10) * power for power in (1, 10, 100) for digit in range(10)]
    return rng.permutation(np.unique(others))[:12]
