"""Training for MaxSim: what it learns, what it leaves alone, determinism, what it refuses."""

import numpy as np
import pytest
import torch

from isometry.encoders import LateInteraction
from isometry.errors import EmptyInput, InputError, SpaceMismatch
from isometry.indexes.maxsim import maxsim_scores
from isometry.modules.token_projection import TokenProjection
from isometry.modules.token_reduction import Clusters, reduce_embeddings, reducers
from isometry.training.late_interaction import (
    MaxSimTraining,
    PairBatches,
    train_head,
    train_late_interaction,
)
from isometry.types import Embeddings, Space, id_array


def states(n, length, *, role, noise_seed, dim=24, topics=8):
    """Tokens of n texts: 4 dimensions say which text it is, the others are loud noise."""
    rng = np.random.default_rng(0)
    names = rng.standard_normal((n, topics)).astype(np.float32)
    noise = np.random.default_rng(noise_seed).standard_normal((n, length, dim - topics)).astype(np.float32)
    x = np.concatenate([np.repeat(names[:, None], length, 1), 3 * noise], axis=2).reshape(-1, dim)
    offsets = np.arange(n + 1, dtype=np.int64) * length
    space = Space("toy", dim, similarity="maxsim", normalized=False)
    return Embeddings(x, id_array(f"{role[0]}{i}" for i in range(n)), space, role=role, offsets=offsets)


QUERIES, DOCUMENTS = states(40, 5, role="query", noise_seed=1), states(40, 12, role="document", noise_seed=2)
PAIRS = [(f"q{i}", f"d{i}") for i in range(40)]
TRAIN, TEST = PAIRS[:28], range(28, 40)


def found(head, name="MV"):
    """Share of held-out queries whose document comes first."""
    sides = []
    for emb in (QUERIES, DOCUMENTS):
        with torch.no_grad():
            vectors = head(torch.from_numpy(emb.vectors)).numpy()
        space = Space("toy", vectors.shape[1], similarity="maxsim")
        sides.append(Embeddings(vectors, emb.ids, space, role=emb.role, offsets=emb.offsets))
    reduced = [reduce_embeddings(side, reducers(name))[0] for side in sides]
    return np.mean([maxsim_scores(*reduced)[i].argmax() == i for i in TEST])


@pytest.mark.parametrize("name", ["MV", "C2x4", "SV"])
def test_the_head_learns_what_tells_texts_apart(name):
    settings = MaxSimTraining(reducer=name, steps=120, batch_size=14, lr=1e-2, temperature=0.1)
    start = TokenProjection(24, 8)
    trained = train_head(QUERIES, DOCUMENTS, TRAIN, head=start, settings=settings)
    assert np.mean(trained.losses[-10:]) < 0.5 * trained.losses[0]
    assert found(trained.head, name) >= found(start, name) + 0.3
    assert not trained.head.training
    assert torch.equal(start.weight, TokenProjection(24, 8).weight)  # what it began from stays


def test_the_seed_decides_everything():
    runs = [
        train_head(QUERIES, DOCUMENTS, TRAIN, head=8, settings=MaxSimTraining("C2x4", 12, batch_size=8, seed=s))
        for s in (0, 0, 1)
    ]
    assert list(runs[0].losses) == list(runs[1].losses)
    assert torch.equal(runs[0].head.weight, runs[1].head.weight)
    assert list(runs[0].losses) != list(runs[2].losses)


def test_the_trained_mapping_of_reducers_is_used_inside_the_loss():
    by_name, by_role, none = (
        train_head(QUERIES, DOCUMENTS, TRAIN, head=8, settings=MaxSimTraining(r, 3, batch_size=8)).losses
        for r in ("C2x4", {"query": Clusters(k=2), "document": Clusters(k=4)}, None)
    )
    assert list(by_name) == list(by_role) != list(none)


def test_a_learned_temperature_moves_and_a_fixed_one_does_not():
    for learn in (True, False):
        settings = MaxSimTraining(steps=10, batch_size=8, lr=1e-2, temperature=0.1, learn_temperature=learn)
        trained = train_head(QUERIES, DOCUMENTS, TRAIN, head=8, settings=settings)
        assert (trained.temperature == pytest.approx(0.1)) != learn


def test_hard_negatives_join_the_batch():
    negatives = {"q0": ["d30", "d31"], "q1": ["d32"]}
    batches = list(PairBatches(PAIRS[:4], 4, negatives=negatives, seed=0))
    assert len(batches) == 1
    assert len(batches[0].documents) == 6
    assert set(batches[0].documents[4:]) <= {"d30", "d31", "d32"}
    with_them, without = (
        train_head(QUERIES, DOCUMENTS, TRAIN, head=8, settings=MaxSimTraining(steps=1, batch_size=28), negatives=n)
        for n in ({q: ["d39"] for q, _ in TRAIN}, None)
    )
    assert with_them.losses[0] > without.losses[0]  # more candidates in the denominator


def test_a_relevant_document_is_never_a_negative():
    pairs = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "z")]
    (batch,) = PairBatches(pairs, 4, negatives={"c": ["x"], "b": ["y"]})
    relevant = set(pairs)
    for i, query in enumerate(batch.queries):
        for j, document in enumerate(batch.documents):
            assert bool(batch.drop[i, j]) == ((query, document) in relevant)


def test_batches_of_each_pass_are_new_and_repeatable():
    def order(seed, epoch):
        batches = PairBatches(PAIRS, 8, seed=seed)
        batches.set_epoch(epoch)
        return [q for batch in batches for q in batch.queries]

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == sorted(order(0, 1)) == sorted(q for q, _ in PAIRS)
    assert order(0, 0) != order(0, 1) != order(1, 1)


def test_small_data_make_small_batches():
    (batch,) = PairBatches(PAIRS[:3], 32)
    assert len(batch.queries) == 3


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    wild = MaxSimTraining(steps=5, batch_size=8, lr=1e30, temperature=1e-6)
    with pytest.raises(InputError, match=r"loss is .* at step"):
        train_head(QUERIES, DOCUMENTS, TRAIN, head=TokenProjection(24, 8, normalize=False), settings=wild)


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="'d99'"):
        train_head(QUERIES, DOCUMENTS, [("q0", "d99"), ("q1", "d1")])
    with pytest.raises(InputError, match="negatives of 'q0' name 'nothing'"):
        train_head(QUERIES, DOCUMENTS, TRAIN, negatives={"q0": ["nothing"]})
    with pytest.raises(InputError, match="two pairs or more"):
        train_head(QUERIES, DOCUMENTS, TRAIN[:1])
    other = Embeddings(DOCUMENTS.vectors, DOCUMENTS.ids, Space("other", 24), offsets=DOCUMENTS.offsets)
    with pytest.raises(SpaceMismatch):
        train_head(QUERIES, other, TRAIN)
    with pytest.raises(InputError, match="width"):
        train_head(QUERIES, DOCUMENTS, TRAIN, head=TokenProjection(5, 2))


# Texts ---------------------------------------------------------------------------------------------------------------

ASKED = {"a": "a small domestic feline", "b": "capital of France", "c": "water falling from clouds", "d": "to run fast"}
TOLD = {
    "1": "the cat is a pet",
    "2": "Paris lies on the Seine",
    "3": "it is raining today",
    "4": "sprint",
    "5": "a stone",
}
MATCHES = list(zip("abcd", "1234", strict=True))


@pytest.fixture(scope="module")
def model():
    return LateInteraction.of("minilm", dim=16, drop_punctuation=True)


def test_a_model_is_trained_on_texts_and_carries_its_reducer(model, tmp_path):
    before = model.space.id
    settings = MaxSimTraining("C2x4", steps=15, batch_size=4, lr=1e-2)
    trained = train_late_interaction(model, ASKED, TOLD, MATCHES, settings=settings, negatives={"a": ["5"]})
    assert trained.losses[-1] < trained.losses[0]
    assert model.space.id == before != trained.model.space.id
    assert trained.model.reducers == reducers("C2x4")
    assert trained.model.choice == model.choice
    assert trained.model.space.revision == model.space.revision  # the transformer was not touched
    assert len(trained.model.encode_document(["a rather long text about nothing in particular"])[0]) == 4
    trained.model.save(tmp_path)
    assert LateInteraction.load(tmp_path).space == trained.model.space


def test_layers_are_trained_on_a_copy(model):
    states_before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    settings = MaxSimTraining(steps=4, batch_size=4, lr=1e-3)
    trained = train_late_interaction(model, ASKED, TOLD, MATCHES, layers=1, settings=settings)
    assert np.isfinite(trained.losses).all()
    after = trained.model.backbone.state_dict()
    moved = {k for k, v in states_before.items() if not torch.equal(v, after[k])}
    assert moved
    assert all(name.startswith("encoder.layer.5.") for name in moved)
    assert all(torch.equal(v, states_before[k]) for k, v in model.backbone.state_dict().items())
    assert not torch.equal(trained.model.head.weight, model.head.weight)
    assert trained.model.space.revision != model.space.revision
    assert all(len(v) for v in trained.model.encode_query(list(ASKED.values())))


def test_a_model_without_head_can_only_be_trained_in_its_layers(model):
    bare = model.replace(head=None)
    with pytest.raises(InputError, match="nothing to train"):
        train_late_interaction(bare, ASKED, TOLD, MATCHES)
    trained = train_late_interaction(
        bare, ASKED, TOLD, MATCHES, layers=1, settings=MaxSimTraining(steps=1, batch_size=4, lr=1e-4)
    )
    assert trained.model.head is None


def test_texts_that_are_missing_or_empty_are_named(model):
    with pytest.raises(InputError, match="'9'"):
        train_late_interaction(model, ASKED, TOLD, [*MATCHES, ("a", "9")])
    with pytest.raises(EmptyInput, match="'2'"):
        train_late_interaction(model, ASKED, {**TOLD, "2": ""}, MATCHES)
