"""Rules of the house: cheap imports, names, file sizes, the error tree, what the registry finds."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import isometry
from isometry import errors, registry

ROOT = Path(isometry.__file__).parent


def test_import_is_light():
    code = (
        "import sys, isometry, isometry.cli.app;"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'sklearn', 'pyarrow', 'numba', 'usearch', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_listing_recipes_and_parts_imports_none_of_them():
    code = (
        "import sys; from isometry import registry; registry.recipes(); registry.parts();"
        "print([m for m in sys.modules if m.startswith('isometry.')], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in sys.modules or done.stdout.strip().endswith("False")
    assert "isometry.recipes" not in done.stdout


def test_every_public_name_of_the_package_resolves():
    for name in isometry.__all__:
        assert getattr(isometry, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = isometry.nonsense


def test_no_catch_all_files_and_no_long_files():
    files = list(ROOT.rglob("*.py"))
    banned = {"utils", "util", "common", "helpers", "helper", "misc", "core"}
    assert not [f for f in files if f.stem in banned or f.parent.name in banned]
    long = {f.name: n for f in files if (n := len(f.read_text(encoding="utf-8").splitlines())) > 450}
    assert not long


def test_every_error_is_in_the_tree_on_top_of_the_file():
    documentation = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__:
            assert re.search(rf"\b{name}\b", documentation), name


def test_unknown_names_come_with_the_nearest():
    error = errors.UnknownName("recipe", "hnsw-recal", ["hnsw-recall", "gistembed"], hint="See the list.")
    assert str(error) == "Unknown recipe 'hnsw-recal'. Did you mean 'hnsw-recall'? See the list."
    with pytest.raises(errors.UnknownName, match="Did you mean"):
        registry.recipe("gist-embed")


def test_a_hundred_cards_are_read_quickly(tmp_path):
    """The bound is generous: reading must not depend on importing torch (which takes seconds)."""
    source = Path(registry.recipe("text-embedding-depth").path).read_text(encoding="utf-8")
    for i in range(100):
        (tmp_path / f"r{i}.py").write_text(source.replace('slug="text-embedding-depth"', f'slug="s{i}"'))
    started = time.process_time()
    assert len(registry.recipes(tmp_path)) == 100
    assert time.process_time() - started < 5


def test_cards_must_be_literal_and_slugs_unique(tmp_path):
    (tmp_path / "a.py").write_text('CARD = Card(slug="x", year=1 + one())\n')
    with pytest.raises(errors.RecipeError, match="literals only"):
        registry.recipes(tmp_path)
    other = tmp_path / "two"
    other.mkdir()
    for name in "ab":
        (other / f"{name}.py").write_text('CARD = Card(slug="x")\n')
    with pytest.raises(errors.RecipeError, match="used twice"):
        registry.recipes(other)


def test_where_finds_a_technique_by_its_words():
    found = registry.find("depth")
    assert any(part.module == "isometry.diagnostics.depth" for part in found)
    assert all(part.path.is_file() for part in found)
    lines = found[0].path.read_text(encoding="utf-8").splitlines()
    assert found[0].name in lines[found[0].line - 1]
    assert registry.find("no such thing anywhere") == []


def test_every_card_names_parts_that_exist():
    known = {part.reference for part in registry.parts()}
    for entry in registry.recipes().values():
        missing = {*entry.card["mechanism"], *entry.card.get("parts", ())} - known
        assert not missing, f"{entry.slug}: {missing}"
