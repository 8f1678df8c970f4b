from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from isometry.errors import DimensionMismatch, InputError
from isometry.objectives import (
    CoSENT,
    EveryLayer,
    FullOnly,
    InfoNCE,
    Matryoshka,
    Menu,
    Sampled,
    SampledWeighted,
    Size,
    SizedLoss,
    align_coordinates,
    align_principal,
    align_scores,
    prefix,
)

DEPTH, WIDTH, ROWS = 4, 16, 6
FULL = Size(DEPTH, WIDTH)
MENU = (Size(1, 2), Size(2, 8), FULL)
GOLD = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.0, 0.7])


def layers(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(ROWS, WIDTH, generator=generator) for _ in range(DEPTH + 1)]


COLUMNS = [layers(0), layers(1)]


def sized(schedule, align=align_coordinates, loss=None) -> SizedLoss:
    return SizedLoss(None, lambda m, f: f, loss or CoSENT(), schedule, full=FULL, align=align)


def plain(n: int, d: int) -> torch.Tensor:
    return CoSENT().compute_loss_from_embeddings([column[n][:, :d] for column in COLUMNS], GOLD)


def test_a_menu_of_the_full_size_is_the_plain_loss():
    for schedule in (Menu((FULL,)), FullOnly(FULL)):
        assert torch.isclose(sized(schedule).compute_loss_from_layers(COLUMNS, GOLD), plain(*FULL))


def test_menu_loss_is_the_sum_of_separate_losses_and_alignments():
    expected = sum(plain(n, d) for n, d in MENU)
    expected += sum(0.3 * align_coordinates(COLUMNS, size, FULL) for size in MENU[:-1])
    assert torch.isclose(sized(Menu(MENU)).compute_loss_from_layers(COLUMNS, GOLD), expected)


def test_weighted_form_without_inner_weights_is_the_base_loss():
    schedule = SampledWeighted(FULL, (WIDTH,), prior=0.0, align_weight=0.0)
    assert torch.isclose(sized(schedule).compute_loss_from_layers(COLUMNS, GOLD, step=3), plain(*FULL))


def test_mean_over_all_draws_is_what_sampling_approaches():
    schedule = Sampled(FULL, (2, 8, 16), seed=1)
    loss = sized(schedule)
    sizes = [Size(n, d) for n in schedule.depths for d in schedule.dims]
    values = {size: loss_of(loss, schedule.at(size)) for size in sizes}
    exact = sum(values.values()) / len(values)
    drawn = torch.stack([loss.compute_loss_from_layers(COLUMNS, GOLD, step=step) for step in range(1200)])
    assert abs(float(drawn.mean() - exact)) < 4 * float(drawn.std()) / 1200**0.5
    again = loss.compute_loss_from_layers(COLUMNS, GOLD, step=17)
    assert torch.equal(again, drawn[17])


def loss_of(loss: SizedLoss, terms) -> torch.Tensor:
    return sized(lambda step: terms, loss.align).compute_loss_from_layers(COLUMNS, GOLD)


@pytest.mark.parametrize("detach", [True, False])
def test_alignment_is_zero_for_equal_embeddings_and_positive_otherwise(detach):
    same = [[column[DEPTH]] * (DEPTH + 1) for column in COLUMNS]
    assert abs(float(align_coordinates(same, Size(2, WIDTH), FULL, detach=detach))) < 1e-6
    assert abs(float(align_coordinates(same, Size(2, 8), FULL, detach=detach))) < 1e-6
    assert align_coordinates(COLUMNS, Size(2, 8), FULL, detach=detach) > 0.01
    assert abs(float(align_scores(same, Size(2, WIDTH), FULL))) < 1e-6
    assert align_scores(COLUMNS, Size(2, 8), FULL) > 0.01


def test_alignment_is_the_divergence_of_the_formula_and_keeps_the_teacher_out():
    columns = [[x.clone().requires_grad_() for x in column] for column in COLUMNS]
    student = torch.cat([c[2][:, :8] for c in columns]) / 0.5
    teacher = torch.cat([c[DEPTH][:, :8] for c in columns]) / 0.5
    expected = nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
    )
    values = {d: align_coordinates(columns, Size(2, 8), FULL, temperature=0.5, detach=d) for d in (True, False)}
    for detach, value in values.items():
        assert torch.isclose(value, expected, atol=1e-6)
        grads = torch.autograd.grad(value, [columns[0][2], columns[0][DEPTH]], allow_unused=True)
        assert grads[0].abs().sum() > 0
        assert (grads[1] is None) == detach


def test_coordinates_of_unit_vectors_need_a_low_temperature():
    unit = [[nn.functional.normalize(x, dim=1) for x in column] for column in COLUMNS]
    with pytest.raises(InputError, match="unit vectors"):
        align_coordinates(unit, Size(2, 8), FULL)
    assert align_coordinates(unit, Size(2, 8), FULL, temperature=0.05) > 0


def test_every_layer_form_trains_all_layers_and_alignment_leaves_the_target_alone():
    columns = [[x.clone().requires_grad_() for x in column] for column in COLUMNS]
    loss = sized(EveryLayer(FULL, 4), align_principal).compute_loss_from_layers(columns, GOLD)
    grads = torch.autograd.grad(loss, columns[0][1:])
    assert all(g[:, :4].abs().sum() > 0 for g in grads)
    assert all(g[:, 4:].abs().sum() == 0 for g in grads[:-1])


def test_prefixes_are_renormalised_unless_dot_products_are_wanted():
    x = COLUMNS[0][0]
    assert torch.allclose(prefix(x, 5).norm(dim=1), torch.ones(ROWS))
    assert torch.equal(prefix(x, 5, unit=False), x[:, :5])
    with pytest.raises(DimensionMismatch):
        prefix(x, WIDTH + 1)


def test_one_dimensional_form_is_the_weighted_sum_over_prefixes():
    ends = [column[DEPTH] for column in COLUMNS]
    loss = Matryoshka(None, CoSENT(), dims=(16, 4), weights=(1.0, 0.5))
    expected = plain(DEPTH, 16) + 0.5 * plain(DEPTH, 4)
    assert torch.isclose(loss.compute_loss_from_embeddings(ends, GOLD), expected)
    whole = Matryoshka(None, InfoNCE(), dims=(WIDTH,)).compute_loss_from_embeddings(ends)
    assert torch.isclose(whole, InfoNCE().compute_loss_from_embeddings(ends))


def test_wraps_losses_of_sentence_transformers():
    from sentence_transformers import SentenceTransformer, losses

    class Identity(nn.Module):
        def forward(self, features):
            return features

    inner = losses.CoSENTLoss(SentenceTransformer(modules=[Identity()], device="cpu"))
    if not hasattr(inner, "compute_loss_from_embeddings"):
        pytest.skip("this release has no compute_loss_from_embeddings")
    value = sized(Menu(MENU, 0.0), loss=inner).compute_loss_from_layers(COLUMNS, GOLD)
    assert torch.isclose(value, sized(Menu(MENU, 0.0)).compute_loss_from_layers(COLUMNS, GOLD), atol=1e-5)


def test_losses_that_cache_gradients_are_refused():
    class CachedInfoNCE(InfoNCE):
        pass

    for loss in (CachedInfoNCE(), nn.Linear(1, 1)):
        with pytest.raises(InputError, match="cannot be wrapped"):
            sized(Menu(MENU), loss=loss)
        with pytest.raises(InputError, match="cannot be wrapped"):
            Matryoshka(None, loss, dims=(2,))


def test_the_step_counts_training_calls_only_and_texts_reach_the_inner_loss():
    seen = []

    class Spy(CoSENT):
        def compute_loss_from_embeddings(self, embeddings, labels=None, texts=None):
            seen.append(texts)
            return super().compute_loss_from_embeddings(embeddings, labels, texts)

    model = nn.Linear(1, 1)
    loss = SizedLoss(model, lambda m, f: f["layers"], Spy(), Menu(MENU), full=FULL)
    features = [{"layers": column, "text": ["a"] * ROWS} for column in COLUMNS]
    loss.train()(features, GOLD)
    loss.eval()(features, GOLD)
    assert loss.step == 1
    assert seen[0] == [["a"] * ROWS] * 2


def test_a_broken_batch_names_its_step_and_layer():
    broken = [[x.clone() for x in column] for column in COLUMNS]
    broken[1][2][0, 0] = torch.nan
    with pytest.raises(InputError, match=r"Layer 2 .* step 41"):
        sized(Menu(MENU)).compute_loss_from_layers(broken, GOLD, step=41)


def test_bad_sizes_and_empty_schedules_are_refused():
    with pytest.raises(InputError, match="no layer 9"):
        sized(FullOnly(Size(9, 4))).compute_loss_from_layers(COLUMNS, GOLD)
    with pytest.raises(InputError, match="no size any weight"):
        sized(SampledWeighted(FULL, (2,), last=0, prior=0, align_weight=0)).compute_loss_from_layers(COLUMNS, GOLD)
    with pytest.raises(InputError, match="no model"):
        sized(FullOnly(FULL))([], GOLD)
    with pytest.raises(InputError, match="one weight a width"):
        Matryoshka(None, CoSENT(), dims=(2, 4), weights=(1.0,))


def test_retrieval_alignment_uses_dot_products_of_all_passages():
    columns = [*COLUMNS, layers(2)]
    value = partial(align_scores, temperature=2.0)(columns, Size(2, 8), FULL)

    def scores(n, d):
        return columns[0][n][:, :d] @ torch.cat([c[n][:, :d] for c in columns[1:]]).T / 2.0

    expected = nn.functional.kl_div(scores(2, 8).log_softmax(1), scores(DEPTH, WIDTH).softmax(1), reduction="batchmean")
    assert torch.isclose(value, expected, atol=1e-5)
