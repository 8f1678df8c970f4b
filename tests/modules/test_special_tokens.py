"""The three-block mask against its rules, and what it does to a decoder."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import DimensionMismatch, EmptyInput, InputError
from isometry.modules.attention_mask import run
from isometry.modules.special_tokens import (
    PAD,
    PREFIX,
    SPECIAL,
    SUFFIX,
    add_tokens,
    bottleneck_mask,
    check_bottleneck,
    draw_splits,
    insert_tokens,
    old_vocabulary,
    special_states,
)


def by_rules(s, k, suffix):
    """The paper's rules, one entry at a time."""
    n = s + k + suffix
    table = torch.zeros(n, n, dtype=torch.bool)
    for i, j in product(range(n), range(n)):
        if i < s:
            table[i, j] = j <= i
        elif i < s + k:
            table[i, j] = j < s or j == i
        else:
            table[i, j] = s <= j <= i
    return table


def test_mask_equals_the_rule_table():
    for s, k, suffix in product(range(1, 6), range(1, 4), range(5)):
        parts = torch.tensor([[PREFIX] * s + [SPECIAL] * k + [SUFFIX] * suffix])
        assert torch.equal(bottleneck_mask(parts)[0], by_rules(s, k, suffix)), (s, k, suffix)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 6), st.integers(0, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_padding_sees_and_shows_nothing(s, k, suffix, pads, left):
    real = [PREFIX] * s + [SPECIAL] * k + [SUFFIX] * suffix
    parts = torch.tensor([[PAD] * pads + real if left else real + [PAD] * pads])
    mask = bottleneck_mask(parts)[0]
    start = pads if left else 0
    inner = mask[start : start + len(real), start : start + len(real)]
    assert torch.equal(inner, by_rules(s, k, suffix))
    padding = parts[0] == PAD
    assert torch.equal(mask[padding], torch.eye(len(mask), dtype=torch.bool)[padding])
    assert not mask[~padding][:, padding].any()


def test_insertion_and_labels():
    batch = insert_tokens([[5, 6, 7, 8], [1, 2]], [9, 10], [2, 1], pad=99)
    assert batch.input_ids.tolist() == [[5, 6, 9, 10, 7, 8], [1, 9, 10, 2, 99, 99]]
    assert batch.labels.tolist() == [[-100] * 4 + [7, 8], [-100] * 3 + [2, -100, -100]]
    assert batch.attention_mask[1].tolist() == [1, 1, 1, 1, 0, 0]
    left = insert_tokens([[5, 6, 7, 8], [1, 2]], [9, 10], [2, 1], pad=99, side="left", prefix_targets=True)
    assert left.input_ids[1].tolist() == [99, 99, 1, 9, 10, 2]
    assert left.labels.tolist() == [[5, 6, -100, -100, 7, 8], [-100, -100, 1, -100, -100, 2]]


def test_splits_stay_clear_of_both_ends():
    lengths = [7, 8, 20, 3] * 20
    kept, splits = draw_splits(lengths, least=4, seed=3)
    assert kept == [i for i, length in enumerate(lengths) if length >= 8]
    assert all(4 <= s <= lengths[row] - 4 for row, s in zip(kept, splits, strict=True))
    assert draw_splits(lengths, least=4, seed=3) == (kept, splits)
    assert len({s for row, s in zip(kept, splits, strict=True) if lengths[row] == 20}) > 5


@pytest.fixture(scope="module")
def lm():
    model = tiny_decoder(40, dim=16, heads=2)
    add_tokens(model, 2)
    return model


def suffix(lm, rows, *, blind=False, tokens=(40, 41), split=4):
    batch = insert_tokens(rows, tokens, [split] * len(rows))
    with torch.no_grad():
        states = run(lm, batch.attention_mask, input_ids=batch.input_ids, may_attend=batch.may_attend(blind=blind))
    return states, batch


def test_suffix_sees_the_prefix_through_the_tokens_alone(lm):
    row = list(range(10))
    changed = [39, *row[1:]]
    for blind, same in ((True, True), (False, False)):
        (first, batch), (second, _) = (suffix(lm, [r], blind=blind) for r in (row, changed))
        kept = batch.parts == SUFFIX
        assert torch.equal(first[kept], second[kept]) is same


def test_tokens_do_not_see_each_other(lm):
    embeds = lm.get_input_embeddings()
    batch = insert_tokens([list(range(10))], [40, 41], [6])
    states = []
    for zero in (False, True):
        inputs = embeds(batch.input_ids).detach().clone()
        if zero:
            inputs[0, 6] = 0
        with torch.no_grad():
            states.append(run(lm, batch.attention_mask, inputs_embeds=inputs, may_attend=batch.may_attend()))
    moved = (states[0] - states[1]).abs().amax(-1)[0] > 0
    assert moved.tolist() == [False] * 6 + [True, False] + [True] * 4


def test_vector_is_independent_of_what_follows_and_of_padding(lm):
    row = [3, 1, 4, 1, 5]
    alone, batch = suffix(lm, [row], split=5)
    long, padded = suffix(lm, [[*row, 9, 2, 6], list(range(20))], split=5)
    first, second = special_states(alone, batch.parts)[0], special_states(long, padded.parts)[0]
    torch.testing.assert_close(first, second)
    left = insert_tokens([row, list(range(12))], [40, 41], side="left")
    with torch.no_grad():
        states = run(lm, left.attention_mask, input_ids=left.input_ids, may_attend=left.may_attend())
    assert torch.isfinite(states).all()
    torch.testing.assert_close(special_states(states, left.parts)[0], first)


def test_added_tokens_leave_old_predictions_alone():
    before, after = tiny_decoder(40, dim=16, heads=2), tiny_decoder(40, dim=16, heads=2)
    numbers = add_tokens(after, 3)
    ids = torch.arange(12)[None]
    assert numbers == [40, 41, 42]
    torch.testing.assert_close(after(ids).logits[..., :40], before(ids).logits, rtol=0, atol=1e-6)
    table = after.get_input_embeddings().weight
    torch.testing.assert_close(table[40:], table[:40].mean(0).expand(3, -1))
    assert old_vocabulary(after, numbers).nonzero()[:, 0].tolist() == list(range(40))


def test_a_kernel_that_drops_the_mask_is_found(lm, monkeypatch):
    check_bottleneck(lm.base_model, [40, 41])
    monkeypatch.setattr(
        "isometry.modules.special_tokens.run",
        lambda body, mask, *, input_ids, may_attend: run(body, mask, input_ids=input_ids),
    )
    with pytest.raises(InputError, match="does not follow the attention mask"):
        check_bottleneck(lm.base_model, [40, 41])


def test_bad_input(lm):
    with pytest.raises(InputError, match="Row 0 cannot be split after 3"):
        insert_tokens([[1, 2]], [9], [3])
    with pytest.raises(EmptyInput):
        insert_tokens([], [9])
    with pytest.raises(InputError, match="no inserted token"):
        special_states(torch.zeros(1, 2, 3), torch.zeros(1, 2))
    with pytest.raises(DimensionMismatch):
        bottleneck_mask(torch.zeros(3))
    with pytest.raises(InputError, match="least=0"):
        draw_splits([4], least=0)
    with pytest.raises(InputError, match="at least one token"):
        add_tokens(lm, 0)
