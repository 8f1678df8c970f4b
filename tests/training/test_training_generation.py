"""GRL: both modes of one network, groups that do not mix, and exact gradients from gradient caching."""

import pytest
import torch

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import EmptyInput, InputError
from isometry.objectives.generation import agreement_loss, preference_loss
from isometry.objectives.nt_xent import nt_xent
from isometry.training.generation import GRL, GenerationPrompt, GRLConfig, QueryGroup
from isometry.training.gradient_caching import grad_cache


@pytest.fixture(scope="module")
def groups():
    generator = torch.Generator().manual_seed(0)

    def text(length):
        return torch.randint(2, 40, (length,), generator=generator).tolist()

    return [
        QueryGroup(text(3 + i % 2), [text(5 + i) for _ in range(1 + i % 2)], [text(4) for _ in range(1 + i % 3)])
        for i in range(5)
    ]


def make(dropout=0.0, **settings):
    lm = tiny_decoder(40, dim=16, heads=2)
    for layer in lm.base_model.layers:
        layer.self_attn.attention_dropout = dropout
    return GRL(lm, prompt=GenerationPrompt([0], [1]), config=GRLConfig(**settings))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected, rel=1e-5):
    assert found.keys() == expected.keys()
    worst = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= rel * worst, name


def texts(groups):
    return [text for group in groups for text in group.texts]


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_accumulated_gradients_are_those_of_the_whole_batch(groups, chunk):
    model = make()
    value = model(groups)
    value.backward()
    expected = gradients(model)
    model.zero_grad()
    assert model.accumulate(groups, chunk=chunk) == pytest.approx(float(value.detach()), rel=1e-5)
    assert_same(gradients(model), expected)


def test_grad_cache_is_exact_with_dropout(groups):
    model = make(dropout=0.3).train()
    rows = [group.texts for group in groups]
    torch.manual_seed(3)
    value = model.contrastive(groups, torch.cat([model.projected(chunk) for chunk in rows]))
    value.backward()
    expected = gradients(model)
    model.zero_grad()
    torch.manual_seed(3)
    found = grad_cache(model.projected, rows, lambda vectors: model.contrastive(groups, vectors))
    assert float(found) == pytest.approx(float(value.detach()), rel=1e-6)
    assert_same(gradients(model), expected)
    torch.manual_seed(4)
    other = grad_cache(model.projected, rows, lambda vectors: model.contrastive(groups, vectors))
    assert abs(float(other) - float(found)) > 1e-4  # dropout was on


def test_the_total_is_made_of_its_parts(groups):
    model = make(generation=0.5, agreement=2.0)
    vectors, first = model.vectors(texts(groups)), 0
    preferences, agreements = [], []
    for group in groups:
        n = len(group.positives)
        sums = model.likelihoods([group.query] * len(group.passages), group.passages, reduction="sum")
        means = model.likelihoods([group.query] * len(group.passages), group.passages)
        q, p = vectors[first], vectors[first + 1 : first + len(group.texts)]
        agreements.append(agreement_loss((p @ q)[None], means[None]))
        pairs = [(sums[i], sums[j]) for i in range(n) for j in range(n, len(sums))]
        chosen, rejected = (torch.stack(side) for side in zip(*pairs, strict=True))
        preferences.append(preference_loss(chosen, rejected, label_smoothing=0.1))
        first += len(group.texts)
    labels = [0, 0, 5, 1, 1, 1, 6, 7, 2, 2, 8, 9, 10, 3, 3, 3, 11, 4, 4, 12, 13]
    contrast = nt_xent(model.projected(texts(groups)), torch.tensor(labels), distance="euclidean")
    expected = contrast + 0.5 * torch.stack(preferences).mean() + 2 * torch.stack(agreements).mean()
    torch.testing.assert_close(model(groups), expected)


def test_groups_never_mix_queries():
    """A batch of two groups scores the passages of each under its own query."""
    model = make(contrast=0, agreement=0)
    a, b = QueryGroup([2, 3], [[4, 5]], [[6, 7]]), QueryGroup([20, 21], [[22, 23]], [[24, 25]])
    alone = (model([a]) + model([b])) / 2
    torch.testing.assert_close(model([a, b]), alone)


def test_causal_mode_is_the_unmodified_model(groups):
    model = make()
    group = groups[0]
    ids = torch.tensor([[0, *group.query, 1, *group.positives[0]]])
    start = 2 + len(group.query)
    with torch.no_grad():
        logits = model.lm(ids).logits[0].log_softmax(-1)
    expected = torch.stack([logits[t - 1, ids[0, t]] for t in range(start, ids.shape[1])]).mean()
    torch.testing.assert_close(model.likelihoods([group.query], group.positives[:1])[0], expected)


def test_bidirectional_mode_sees_the_last_token():
    lm = tiny_decoder(40, dim=16, heads=2)
    model = GRL(lm, config=GRLConfig(pooling="cls"))
    both = [[5, 6, 7], [5, 6, 8]]
    assert (model.vectors(both)[0] - model.vectors(both)[1]).abs().max() > 1e-4
    causal = model.vectors(both, kind="causal")
    torch.testing.assert_close(causal[0], causal[1])


def test_agreement_alone_leaves_generation_activations_alone(groups):
    """Code form: the generator's scores are constants, so nothing flows back through causal logits."""
    model = make(contrast=0, generation=0)
    model.lm.lm_head.weight = torch.nn.Parameter(model.lm.lm_head.weight.detach().clone())  # untied: head is its own
    model(groups).backward()
    assert model.lm.lm_head.weight.grad is None or not model.lm.lm_head.weight.grad.any()
    assert model.lm.base_model.layers[0].self_attn.q_proj.weight.grad.any()
    paper = make(contrast=0, generation=0, direction="retrieval")
    paper(groups).backward()
    assert paper.lm.lm_head.weight.grad.any()


def test_projector_is_for_training_only(groups):
    model = make()
    rows = texts(groups)[:3]
    before, projected = model.vectors(rows), model.projected(rows)
    with torch.no_grad():
        model.projector[2].weight.mul_(-1)
    torch.testing.assert_close(model.vectors(rows), before)
    assert (model.projected(rows) - projected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["sft", "ipo", "hinge", "kto_pair"])
def test_every_preference_trains(groups, kind):
    model = make(preference=kind, agreement=0.0 if kind == "sft" else 1.0, miner_epsilon=0.25)
    model(groups).backward()
    assert torch.isfinite(model.lm.base_model.layers[1].mlp.up_proj.weight.grad).all()


def test_bad_input(groups):
    with pytest.raises(InputError, match="none of its texts empty"):
        QueryGroup([1], [[]], [])
    with pytest.raises(InputError, match="agreement=0"):
        GRLConfig(preference="sft")
    with pytest.raises(InputError, match=">= 0"):
        GRLConfig(contrast=-1)
    with pytest.raises(InputError, match="needs negatives"):
        make()([QueryGroup([1], [[2]], [])])
    with pytest.raises(InputError, match="chunk >= 1"):
        make().accumulate(groups, chunk=0)
    with pytest.raises(EmptyInput):
        make().likelihoods([], [])
