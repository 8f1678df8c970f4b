"""What ULLME brings to an encoder, and that its groups hold what they say."""

import numpy as np
import pytest
import torch

from isometry.data.token_tasks import TopicTask
from isometry.errors import InputError
from isometry.recipes.ullme import ndcg, plan, topic_groups
from isometry.training import Tuning


def test_plan_is_nt_xent_on_anything_with_negatives():
    model = torch.nn.Identity()
    loss = plan(Tuning(model, model, "pairs", 8, 2, 4)).loss
    columns = [torch.randn(4, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert loss.compute_loss_from_embeddings(columns) > loss.compute_loss_from_embeddings([columns[0], columns[0]])
    with pytest.raises(InputError, match="scored pairs"):
        plan(Tuning(model, model, "sts", 8, 2, 4))


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
