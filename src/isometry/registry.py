"""What the package holds, found by reading its source: recipe cards and parts, without importing any of them.

A recipe is a file of `isometry.recipes` with a literal ``CARD = Card(...)``. A part is a public class or function with
a docstring in one of the part packages. Nothing is registered by hand, so nothing can be forgotten.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from isometry.errors import RecipeError, UnknownName

PACKAGE = Path(__file__).resolve().parent
PART_PACKAGES = (
    "data",
    "encoders",
    "modules",
    "objectives",
    "negatives",
    "training",
    "spaces",
    "codes",
    "indexes",
    "store",
    "ranking",
    "diagnostics",
    "tasks",
    "stats",
)


@dataclass(frozen=True)
class RecipeEntry:
    """One recipe file: where it is and what its card says, as plain values."""

    slug: str
    module: str
    path: Path
    line: int
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One public class or function of a part package."""

    name: str
    module: str
    path: Path
    line: int
    summary: str
    documentation: str = field(default="", repr=False)
    recipes: tuple[str, ...] = field(default=())
    test: Path | None = None

    @property
    def reference(self) -> str:
        """``module:name``, the form cards use."""
        return f"{self.module}:{self.name}"


def _literal(node: ast.expr, path: Path) -> Any:
    """Evaluate a literal; calls such as ``Claim("x", sign=">")`` and ``dict(a=1)`` become dicts (``"0"``: first)."""
    if isinstance(node, ast.Call):
        values = {str(i): _literal(arg, path) for i, arg in enumerate(node.args)}
        return values | {word.arg: _literal(word.value, path) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(key, path): _literal(value, path) for key, value in pairs if key is not None}
    if isinstance(node, ast.Tuple | ast.List):
        items = [_literal(item, path) for item in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise RecipeError(
            f"{path}:{node.lineno}: a card holds literals only, since it is read without import."
        ) from error


def read_card(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Return (line, keywords) of the ``CARD = Card(...)`` in a file, or None if it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "CARD":
                card: dict[str, Any] = _literal(node.value, path)
                return node.lineno, card
    return None


@lru_cache(maxsize=4)
def recipes(folder: Path = PACKAGE / "recipes") -> dict[str, RecipeEntry]:
    """All recipes of a folder by slug, sorted.

    Raises
    ------
    RecipeError
        If a card is not literal, has no slug, or a slug occurs twice.
    """
    found: dict[str, RecipeEntry] = {}
    for path in sorted(folder.glob("*.py")):
        if (read := None if path.name.startswith("_") else read_card(path)) is None:
            continue
        line, card = read
        slug = str(card.get("slug", ""))
        if not slug or slug in found:
            raise RecipeError(f"{path}:{line}: the card's slug {slug!r} is {'used twice' if slug else 'missing'}.")
        found[slug] = RecipeEntry(slug, f"isometry.recipes.{path.stem}", path, line, card)
    return dict(sorted(found.items()))


def recipe(slug: str) -> RecipeEntry:
    """Return one recipe by its slug.

    Raises
    ------
    UnknownName
        With the nearest slugs.
    """
    entries = recipes()
    if slug not in entries:
        raise UnknownName("recipe", slug, entries, hint="`isometry recipes` lists them.")
    return entries[slug]


def _public(tree: ast.Module) -> Iterator[tuple[str, int, str, str]]:
    about = ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            documentation = ast.get_docstring(node)
            if documentation:
                summary = documentation.strip().partition("\n\n")[0].replace("\n", " ")
                yield node.name, node.lineno, summary, f"{about} {documentation}"


@lru_cache(maxsize=1)
def parts() -> tuple[Part, ...]:
    """All parts, in order of package, file and line, each with the recipes and the test that use it."""
    users: dict[str, list[str]] = {}
    for entry in recipes().values():
        for reference in (*entry.card.get("mechanism", ()), *entry.card.get("parts", ())):
            users.setdefault(str(reference), []).append(entry.slug)
    found = []
    for package in PART_PACKAGES:
        for path in sorted((PACKAGE / package).rglob("*.py")):
            relative = path.relative_to(PACKAGE)
            module = ".".join(("isometry", *relative.with_suffix("").parts)).removesuffix(".__init__")
            test = _test_of(relative)
            for name, line, summary, documentation in _public(ast.parse(path.read_text(encoding="utf-8"))):
                slugs = tuple(users.get(f"{module}:{name}", ()))
                found.append(Part(name, module, path, line, summary, documentation, slugs, test))
    return tuple(found)


def _test_of(relative: Path) -> Path | None:
    """Return the test file that mirrors a source file, in a checkout."""
    folder = PACKAGE.parents[1] / "tests" / relative.parent
    stems = (relative.stem, f"{relative.parent.name}_{relative.stem}", relative.parent.name)
    return next((p for stem in stems if (p := folder / f"test_{stem}.py").is_file()), None)


def find(text: str) -> list[Part]:
    """Parts whose name, documentation, or recipe (title, aliases, slug) holds every word of ``text``.

    Words in the name count first, then those in the summary and the recipe, then those elsewhere.

    >>> [part.name for part in find("SpaceMismatch of nothing")]
    []
    """
    words = text.lower().replace("_", " ").replace("-", " ").split()
    ranked = []
    for part in parts():
        cards = [recipes()[slug].card for slug in part.recipes]
        about_cards = " ".join(f"{c.get('slug')} {c.get('title')} {' '.join(c.get('aliases', ()))}" for c in cards)
        name = "".join(f" {c.lower()}" if c.isupper() else c for c in part.name).replace("_", " ")
        name = f"{name} {part.name.lower()} {part.module.rpartition('.')[2].replace('_', ' ')}"
        near = f"{part.summary} {about_cards}".lower().replace("-", " ")
        far = part.documentation.lower().replace("-", " ")
        if all(word in name or word in near or word in far for word in words):
            cost = sum(0 if word in name else 1 if word in near else 10 for word in words)
            ranked.append((cost, part))
    return [part for _, part in sorted(ranked, key=lambda pair: pair[0])]
