from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.errors import InputError
from isometry.objectives import (
    EveryLayer,
    FullOnly,
    Menu,
    Sampled,
    SampledWeighted,
    Size,
    check_menu,
    draw_size,
    size_menu,
)

FULL = Size(6, 64)


def test_menu_of_the_paper():
    assert size_menu(12, 768) == ((2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768))


@given(st.integers(1, 40), st.integers(1, 2048), st.integers(1, 8))
def test_menus_grow_to_the_full_size_or_are_refused(layers, dims, sizes):
    try:
        menu = size_menu(layers, dims, sizes=sizes)
    except InputError:
        assert sizes > 1  # one size is always possible
        return
    assert len(menu) == sizes
    assert check_menu(menu, layers, dims) == menu


@pytest.mark.parametrize(
    "menu",
    [[], [(2, 8)], [(6, 64), (6, 64)], [(2, 8), (2, 16), (6, 64)], [(2, 16), (4, 16), (6, 64)], [(0, 8), (6, 64)]],
)
def test_bad_menus_are_refused(menu):
    with pytest.raises(InputError, match="grow"):
        check_menu(menu, 6, 64)


def test_draws_are_reproducible_and_uniform():
    layers, dims = (1, 2, 3, 4, 5), (8, 16, 64)
    draws = [draw_size(layers, dims, seed=3, step=step) for step in range(3000)]
    assert draws == [draw_size(layers, dims, seed=3, step=step) for step in range(3000)]
    assert draws != [draw_size(layers, dims, seed=4, step=step) for step in range(3000)]
    counts = {Size(n, d): draws.count((n, d)) for n in layers for d in dims}
    expected = 3000 / len(counts)
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < 36.1  # chi square, 14 degrees, p = 0.001


def test_schedules_name_what_their_formulas_say():
    menu = size_menu(6, 64, sizes=3)
    terms = Menu(menu, align_weight=0.3)(7)
    assert terms.losses == dict.fromkeys(menu, 1.0)
    assert terms.aligned == dict.fromkeys(menu[:-1], 0.3)
    assert FullOnly(FULL)(0) == Menu((FULL,))(0)

    terms = Sampled(FULL, (8, 16), align_weight=0.5).at(Size(2, 8))
    assert terms.losses == {(6, 64): 1.0, (6, 8): 1.0, (2, 64): 1.0, (2, 8): 1.0}
    assert terms.aligned == {(2, 64): 0.5}
    assert sum(Sampled(FULL, (64,)).at(Size(2, 64)).losses.values()) == 4  # the full width counts twice

    terms = EveryLayer(FULL, 8)(0)
    assert terms.losses[FULL] == terms.losses[6, 8] == 1.0
    assert terms.losses[1, 8] == pytest.approx(1 / 5)
    assert terms.losses[4, 8] == pytest.approx(1 / (1 + math.log(4)) / 5)
    assert terms.aligned.keys() == terms.losses.keys() - {FULL}


def test_weighted_sampling_favours_shallow_layers_unless_told_not_to():
    every = SampledWeighted(FULL, (8, 64), layers_per_step=0)(3)
    assert {size.layers: w for size, w in every.losses.items()} == pytest.approx(
        {6: 1.0, **{n: 1 / (5 * n) for n in range(1, 6)}}
    )
    alike = SampledWeighted(FULL, (8, 64), layers_per_step=2, favour_shallow=False)(3)
    assert sorted(alike.losses.values()) == [0.5, 0.5, 1.0]
    assert {size.dims for size in alike.aligned} == {64}
    base = SampledWeighted(FULL, (64,), prior=0.0, align_weight=0.0)(5)
    assert {size: w for size, w in base.losses.items() if w} == {FULL: 1.0}


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(InputError, match="at least one"):
        draw_size((), (8,), seed=0, step=0)
