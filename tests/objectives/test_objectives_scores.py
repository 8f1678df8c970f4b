"""CoSENT, triplet, alignment, distillation, focal weights: closed forms, peers, gradients, invariances, bad input."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer import losses as peers
from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric
from torch.nn.functional import cosine_similarity, normalize

from isometry.errors import DataWarning, DimensionMismatch, InputError, UnknownName
from isometry.objectives import (
    Alignment,
    CoSENT,
    Distillation,
    Focal,
    InfoNCE,
    TripletLoss,
    align,
    candidate_scores,
    focal_weights,
    listwise_distillation,
    margin_mse,
    score_mse,
    soft_labels,
    triplet_loss,
)
from isometry.objectives.cosent import cosent
from isometry.objectives.info_nce import info_nce


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_gradient(function, *inputs: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(function, [x.clone().requires_grad_() for x in inputs])


# CoSENT


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), b=st.integers(1, 8), scale=st.sampled_from([1.0, 20.0, 50.0]))
def test_cosent_equals_the_definition_written_with_loops(seed, b, scale) -> None:
    s = vectors(seed, b).tanh()
    y = torch.randint(0, 4, (b,), generator=torch.Generator().manual_seed(seed))
    total = 1.0
    for i in range(b):
        for j in range(b):
            if y[i] > y[j]:
                total += math.exp(scale * float(s[j] - s[i]))
    assert float(cosent(s, y, scale=scale)) == pytest.approx(math.log(total), rel=1e-9)


def test_cosent_equals_sentence_transformers() -> None:
    left, right = vectors(0, 16, 8), vectors(1, 16, 8)
    gold = torch.rand(16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = CoSENT().compute_loss_from_embeddings([left, right], gold)
    theirs = peers.CoSENTLoss(None).compute_loss_from_embeddings([left, right], gold)
    torch.testing.assert_close(ours, theirs)


def test_cosent_reads_the_order_of_labels_alone() -> None:
    s, y = vectors(0, 12), vectors(1, 12)
    assert float(cosent(s, y)) == float(cosent(s, y.exp())) == float(cosent(s, 3 * y**3 - 7))


def test_cosent_of_ties_is_zero_with_zero_gradient() -> None:
    s = vectors(0, 5).requires_grad_()
    loss = cosent(s, torch.ones(5))
    loss.backward()
    assert loss.item() == 0.0
    assert s.grad.abs().max() == 0.0


def test_cosent_rounds_scores_to_the_grid_of_the_data() -> None:
    s, y = vectors(0, 2), torch.tensor([0.1 + 0.2, 0.3], dtype=torch.float64)
    assert float(cosent(s, y)) > 0
    assert float(cosent(s, y, decimals=3)) == 0.0


def test_cosent_gradient_and_half_precision() -> None:
    check_gradient(lambda s: cosent(s, torch.tensor([2.0, 1.0, 2.0, 0.0])), vectors(0, 4))
    loss = cosent(torch.full((768,), 1.0, dtype=torch.float16), torch.arange(768))
    assert float(loss) == pytest.approx(math.log(1 + 768 * 767 / 2), rel=1e-5)


def test_cosent_bad_input() -> None:
    with pytest.raises(DimensionMismatch, match="one shape"):
        cosent(torch.ones(3), torch.ones(2))
    with pytest.raises(InputError, match="scale"):
        cosent(torch.ones(2), torch.ones(2), scale=0)
    with pytest.raises(InputError, match="finite"):
        cosent(torch.ones(2), torch.tensor([1.0, math.nan]))
    with pytest.raises(InputError, match="gold scores; pass float labels"):
        CoSENT().compute_loss_from_embeddings([torch.eye(2), torch.eye(2)])
    with pytest.raises(InputError, match="got 3 columns"):
        CoSENT().compute_loss_from_embeddings([torch.eye(2)] * 3, torch.ones(2))
    with pytest.raises(InputError, match="no model"):
        CoSENT()([{}])


# Triplets


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_triplet_equals_sentence_transformers(distance) -> None:
    columns = [vectors(i, 10, 6) for i in range(3)]
    metric = {"cosine": TripletDistanceMetric.COSINE, "euclidean": TripletDistanceMetric.EUCLIDEAN}[distance]
    theirs = peers.TripletLoss(None, metric, triplet_margin=0.4).compute_loss_from_embeddings(columns, None)
    ours = TripletLoss(margin=0.4, distance=distance).compute_loss_from_embeddings(columns)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # the peer adds 1e-6 to differences


def test_triplet_is_zero_exactly_where_the_margin_is_kept() -> None:
    a, p, n = (vectors(i, 200, 4) for i in range(3))
    losses = triplet_loss(a, p, n, margin=0.3, reduction="none")
    kept = (cosine_similarity(a, p) - cosine_similarity(a, n)) >= 0.3
    assert torch.equal(losses == 0, kept)
    loss = TripletLoss(margin=0.3)
    loss.compute_loss_from_embeddings([a, p, n])
    assert loss.active == pytest.approx(1 - float(kept.double().mean()))


def test_euclidean_squared_is_twice_cosine_on_the_sphere() -> None:
    a, p, n = (normalize(vectors(i, 20, 4), dim=1) for i in range(3))
    far = triplet_loss(a, n, a, margin=0.0, distance="euclidean", reduction="none")
    torch.testing.assert_close(far.square(), 2 * triplet_loss(a, n, a, margin=0.0, reduction="none"))
    check_gradient(lambda *x: triplet_loss(*x, margin=0.7), a, p, n)


def test_several_negatives_are_as_many_triplets() -> None:
    a, p, n, m = (vectors(i, 5, 4) for i in range(4))
    both = TripletLoss().compute_loss_from_embeddings([a, p, n, m])
    torch.testing.assert_close(both, (triplet_loss(a, p, n) + triplet_loss(a, p, m)) / 2)


def test_triplet_bad_input() -> None:
    x = torch.eye(3)
    for margin in (2.0, -0.1):
        with pytest.raises(InputError, match="differ by 2"):
            triplet_loss(x, x, x, margin=margin)
    assert float(triplet_loss(x, x, x, margin=2.5, distance="euclidean")) == 2.5
    with pytest.raises(UnknownName, match="manhattan"):
        triplet_loss(x, x, x, distance="manhattan")
    with pytest.raises(DimensionMismatch):
        triplet_loss(x, x, x[:2])
    with pytest.raises(InputError, match="anchor, positive, negative"):
        TripletLoss().compute_loss_from_embeddings([x, x])


# Alignment


def test_alignment_of_unit_vectors_is_two_minus_twice_the_cosine() -> None:
    x, y = (normalize(vectors(i, 9, 5), dim=1) for i in range(2))
    torch.testing.assert_close(align(x, y), (2 - 2 * cosine_similarity(x, y)).mean())
    rotation = torch.linalg.qr(vectors(2, 5, 5)).Q
    torch.testing.assert_close(align(x @ rotation, y @ rotation), align(x, y))
    check_gradient(lambda x: align(x, y), x)


def test_alignment_equals_sentence_transformers_up_to_the_width() -> None:
    x, y, target = vectors(0, 6, 5), vectors(1, 6, 5), vectors(2, 6, 5)
    theirs = peers.MSELoss(None).compute_loss_from_embeddings([x, y], [target, target])
    torch.testing.assert_close(Alignment().compute_loss_from_embeddings([x, y], target), theirs * 5)


def test_alignment_asks_the_teacher_for_each_column_in_its_role() -> None:
    asked = []

    def teacher(texts, role="document"):
        asked.append((list(texts), role))
        return torch.ones(len(texts), 3)

    loss = Alignment(teacher=teacher)
    texts = [["a", "b"], ["c", "d"]]
    assert float(loss.compute_loss_from_embeddings([torch.ones(2, 3)] * 2, None, texts)) == 0.0
    assert asked == [(["a", "b"], "query"), (["c", "d"], "document")]
    with pytest.raises(InputError, match="teacher and raw texts"):
        loss.compute_loss_from_embeddings([torch.ones(2, 3)])
    with pytest.raises(DimensionMismatch, match="vectors and targets"):
        loss.compute_loss_from_embeddings([torch.ones(2, 4)], None, texts[:1])


# Distillation


def test_margin_mse_equals_sentence_transformers() -> None:
    q, p, n = (vectors(i, 7, 5) for i in range(3))
    student = torch.stack([cosine_similarity(q, p), cosine_similarity(q, n)], 1)
    teacher = vectors(3, 7, 2)
    peer = peers.MarginMSELoss(None, similarity_fct=cosine_similarity)
    theirs = peer.compute_loss_from_embeddings([q, p, n], teacher[:, 0] - teacher[:, 1])
    torch.testing.assert_close(margin_mse(student, teacher), theirs)
    torch.testing.assert_close(margin_mse(student, teacher + 5), theirs)
    ours = Distillation(compare=margin_mse).compute_loss_from_embeddings([q, p, n], teacher)
    torch.testing.assert_close(ours, theirs)


def test_listwise_equals_sentence_transformers_kl() -> None:
    columns, teacher = [vectors(i, 7, 5) for i in range(4)], vectors(9, 7, 3)
    peer = peers.DistillKLDivLoss(None, similarity_fct=cosine_similarity, temperature=0.5)
    compare = partial(listwise_distillation, temperature=0.5, teacher_temperature=0.5)
    ours = Distillation(compare=compare).compute_loss_from_embeddings(columns, teacher)
    torch.testing.assert_close(ours * 0.25, peer.compute_loss_from_embeddings(columns, teacher))  # times t squared


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), b=st.integers(1, 4), k=st.integers(1, 6))
def test_cross_entropy_less_the_teachers_entropy_is_kl(seed, b, k) -> None:
    s, t = vectors(seed, b, k), vectors(seed + 1, b, k)
    keep = torch.rand(b, k, generator=torch.Generator().manual_seed(seed)) < 0.7
    keep[:, 0] = True
    temperatures = {"temperature": 0.3, "teacher_temperature": 0.7}
    ce = listwise_distillation(s, t, keep=keep, divergence="ce", **temperatures)
    kl = listwise_distillation(s, t, keep=keep, **temperatures)
    entropy = soft_labels(t, temperature=0.7, keep=keep)[1].mean()
    assert float(ce - entropy) == pytest.approx(float(kl), abs=1e-9)
    assert float(kl) >= -1e-12
    by_row = []
    for i in range(b):
        p, q = (t[i][keep[i]] / 0.7).softmax(0), (s[i][keep[i]] / 0.3).softmax(0)
        by_row.append((float((p * (p / q).log()).sum()), float((q * (q / p).log()).sum())))
    assert float(kl) == pytest.approx(sum(r[0] for r in by_row) / b, abs=1e-9)
    both = listwise_distillation(s, t, keep=keep, divergence="symmetric", **temperatures)
    assert float(both) == pytest.approx(sum(r[0] + r[1] for r in by_row) / 2 / b, abs=1e-9)


def test_listwise_is_zero_for_equal_distributions_and_ignores_constants_and_padding() -> None:
    s, t = vectors(0, 3, 5), vectors(1, 3, 5)
    for divergence in ("kl", "symmetric"):
        assert float(listwise_distillation(s, s + 4.0, divergence=divergence)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(
        listwise_distillation(s + vectors(2, 3, 1), t), listwise_distillation(s, t - vectors(3, 3, 1))
    )
    keep = torch.tensor([True, True, True, False, False]).expand(3, 5)
    torch.testing.assert_close(listwise_distillation(s, t, keep=keep), listwise_distillation(s[:, :3], t[:, :3]))


@pytest.mark.parametrize("divergence", ["kl", "ce", "symmetric"])
def test_listwise_gradients(divergence) -> None:
    t, keep = vectors(1, 3, 4), torch.tensor([[True] * 4, [True, False, True, False], [True, False, False, False]])
    check_gradient(lambda s: listwise_distillation(s, t, keep=keep, divergence=divergence), vectors(0, 3, 4))
    s, teacher = vectors(0, 3, 4).requires_grad_(), t.clone().requires_grad_()
    listwise_distillation(s, teacher, keep=keep, divergence=divergence).backward()
    assert teacher.grad is None


def test_candidates_in_the_batch_come_in_columns() -> None:
    q, p, n = (vectors(i, 3, 4) for i in range(3))
    together, own = candidate_scores([q, p, n], in_batch=True), candidate_scores([q, p, n])
    assert together.shape == (3, 6)
    for i in range(3):
        torch.testing.assert_close(together[i, [i, i + 3]], own[i])


def test_a_teacher_that_is_the_student_leaves_nothing_to_learn() -> None:
    known = {"q": vectors(0, 2, 3), "d": vectors(1, 2, 3)}

    def teacher(texts, role="document"):
        return known[texts[0][0]]

    loss = Distillation(teacher=teacher, in_batch=True)
    found = loss.compute_loss_from_embeddings([known["q"], known["d"]], None, [["q1", "q2"], ["d1", "d2"]])
    assert float(found) == pytest.approx(0, abs=1e-12)


def test_distillation_bad_input() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(InputError, match="Row 1 of the batch keeps no candidate"):
        listwise_distillation(x, x, keep=torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(DimensionMismatch, match="keep must be bool"):
        listwise_distillation(x, x, keep=torch.ones(2, 3))
    with pytest.raises(UnknownName, match="'js'"):
        listwise_distillation(x, x, divergence="js")
    with pytest.raises(InputError, match="temperature"):
        listwise_distillation(x, x, teacher_temperature=0)
    with pytest.raises(DimensionMismatch):
        score_mse(x, x[:1])
    with pytest.raises(DimensionMismatch, match="lists of one"):
        margin_mse(x[:, :1], x[:, :1])
    with pytest.raises(InputError, match="its scores as labels"):
        Distillation().compute_loss_from_embeddings([x, x], torch.tensor([1, 2]))


# Focal weights


def test_gamma_zero_is_the_plain_loss_and_weights_stay_between_0_and_1() -> None:
    q, p = vectors(0, 8, 4), vectors(1, 8, 4)
    plain = InfoNCE().compute_loss_from_embeddings([q, p])
    torch.testing.assert_close(InfoNCE(row_weights=Focal(0.0)).compute_loss_from_embeddings([q, p]), plain)
    losses = info_nce(q, p, reduction="none")
    weights = focal_weights(losses, 0.5)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    torch.testing.assert_close(weights, (1 - (-losses).exp()).sqrt())
    focal = InfoNCE(row_weights=Focal(0.5)).compute_loss_from_embeddings([q, p])
    torch.testing.assert_close(focal, (weights * losses).mean())
    assert float(focal_weights(losses, 2.0, normalise=True).mean()) == pytest.approx(1.0)


def test_weights_scale_gradients_and_have_none() -> None:
    losses = torch.tensor([0.1, 2.0], requires_grad=True)
    weights = focal_weights(losses, 1.0)
    assert not weights.requires_grad
    (weights * losses).sum().backward()
    torch.testing.assert_close(losses.grad, weights)


def test_easy_batches_warn_unless_normalised() -> None:
    losses = torch.full((4,), 1e-6)
    with pytest.warns(DataWarning, match="almost every row is easy"):
        focal_weights(losses, 0.5)
    torch.testing.assert_close(focal_weights(losses, 0.5, normalise=True), torch.ones(4))
    assert focal_weights(torch.zeros(3), 0.5, normalise=True).tolist() == [0.0] * 3
    with pytest.raises(InputError, match="gamma"):
        focal_weights(losses, -1.0)


# What InfoNCE gained


def test_extra_negatives_count_for_their_row_alone() -> None:
    q, docs, extra = vectors(0, 4, 5), vectors(1, 6, 5), vectors(2, 4, 3, 5)
    got = info_nce(q, docs, extra=extra, reduction="none")
    for i in range(4):
        alone = info_nce(q[i : i + 1], torch.cat([docs, extra[i]]), targets=torch.tensor([i]))
        torch.testing.assert_close(got[i], alone)
    assert bool((got >= info_nce(q, docs, reduction="none")).all())
    nothing = info_nce(q, docs, extra=torch.zeros(4, 2, 5, dtype=torch.float64))
    torch.testing.assert_close(nothing, info_nce(q, docs))
    with pytest.raises(DimensionMismatch, match=r"extra must be \[4, k, 5\]"):
        info_nce(q, docs, extra=extra[:3])


def test_both_ways_is_the_mean_of_two_losses() -> None:
    q, p, n = (vectors(i, 5, 4) for i in range(3))
    got = InfoNCE(both_ways=True).compute_loss_from_embeddings([q, p, n])
    torch.testing.assert_close(got, (info_nce(q, torch.cat([p, n])) + info_nce(p, q)) / 2)


def test_a_learned_temperature_is_a_parameter() -> None:
    loss = InfoNCE(temperature=0.5, learn=True)
    value = loss.compute_loss_from_embeddings([vectors(0, 4, 3), vectors(1, 4, 3)])
    value.backward()
    assert loss.temperature == pytest.approx(0.5)
    assert float(loss.log_temperature.grad.abs()) > 0
    assert list(InfoNCE().parameters()) == []
    with pytest.raises(InputError, match="temperature"):
        InfoNCE(temperature=0.0)


def test_cosine_regression_equals_the_peers_loss():
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    from isometry.objectives import CosineRegression

    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator)
    gold = torch.rand(6, generator=generator)
    peer = CosineSimilarityLoss(torch.nn.Identity())
    expected = peer.compute_loss_from_embeddings([left, right], gold)
    torch.testing.assert_close(CosineRegression().compute_loss_from_embeddings([left, right], gold), expected)
    with pytest.raises(InputError, match="float labels"):
        CosineRegression().compute_loss_from_embeddings([left, right])
