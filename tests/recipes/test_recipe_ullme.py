"""What ULLME brings to an encoder, and that its groups hold what they say."""

import numpy as np
import pytest
import torch

from isometry.data.token_tasks import TopicTask
from isometry.encoders import tiny_decoder
from isometry.errors import InputError
from isometry.recipes.ullme import around, judge, ndcg, plan, topic_groups
from isometry.training import Tuning
from isometry.training.generation import GRL


def test_plan_is_nt_xent_on_anything_with_negatives():
    model = torch.nn.Identity()
    loss = plan(Tuning(model, model, "pairs")).loss
    columns = [torch.randn(4, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert loss.compute_loss_from_embeddings(columns) > loss.compute_loss_from_embeddings([columns[0], columns[0]])
    with pytest.raises(InputError, match="scored pairs"):
        plan(Tuning(model, model, "sts"))


def test_positives_are_of_the_querys_topic_and_negatives_of_others():
    task = TopicTask()
    table = [set(row) for row in task.table().tolist()]
    for group in topic_groups(task, 20, seed=3):
        assert len(group.negatives) == 7
        of = [words for words in table if set(group.query) | set(group.positives[0]) <= words]
        assert len(of) == 1
        assert not any(set(passage) <= of[0] for passage in group.negatives)


def test_ndcg_of_the_best_and_the_worst_ranking():
    assert ndcg([np.array([0.9, 0.5, 0.1])]) == pytest.approx(1)
    assert ndcg([np.array([0.1, 0.5, 0.9])]) == pytest.approx(0.5)


def test_judge_tells_rank_correlation_and_divergence_apart():
    task = TopicTask(topics=8, words=6, vocabulary=30)
    model = GRL(tiny_decoder(32, dim=16, heads=2), prompt=around(task))
    groups, cosines = topic_groups(task, 5, seed=1), torch.tensor([1.0, *(0.1 * i for i in range(8))])
    rays = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)  # the query, then its candidates
    model.vectors = lambda rows: rays.repeat(len(rows) // 9, 1)
    model.likelihoods = lambda queries, passages: torch.arange(float(len(passages))) % 8
    found = judge(model, groups)  # P_rt and P_gen are the same
    assert found["spearman"] == pytest.approx(1)
    assert found["divergence"] == pytest.approx(0, abs=1e-5)
    assert found["ndcg@10"] == found["ndcg@10 by likelihood"] == pytest.approx(1 / np.log2(9))
    model.likelihoods = lambda queries, passages: 3 * torch.arange(float(len(passages))).remainder(8)
    found, sure, unsure = judge(model, groups), (3 * torch.arange(8.0)).log_softmax(0), torch.arange(8.0).log_softmax(0)
    assert found["spearman"] == pytest.approx(1)
    assert found["divergence"] == pytest.approx(float((sure.exp() * (sure - unsure)).sum()), rel=1e-4)
