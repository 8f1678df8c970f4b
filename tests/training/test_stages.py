"""Training in stages: columns, prompts, sources that never mix, and weights that move."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from isometry.data.converters import Row
from isometry.encoders.backbones import tiny_decoder
from isometry.errors import EmptyInput, InputError
from isometry.modules import DecoderTransformer, LatentAttention
from isometry.negatives import other_rows
from isometry.objectives import InfoNCE
from isometry.training.stages import StageFeed, TrainingStage, train_in_stages


def rows(source, count=8, negatives=2):
    return [
        Row(
            "retrieval", f"{source} {i}", (f"good {i}",), tuple(f"bad {i} {j}" for j in range(negatives)), source=source
        )
        for i in range(count)
    ]


@pytest.fixture
def model(minilm):
    tokenizer = minilm.model.tokenizer
    body = DecoderTransformer(tiny_decoder(len(tokenizer), dim=16, heads=2), tokenizer)
    return SentenceTransformer(
        modules=[body, LatentAttention(16, latents=4, heads=2, head_dim=8), Normalize()], device="cpu"
    )


def plain(model):
    return InfoNCE(model)


def test_columns_and_prompts(model):
    stage = TrainingStage(rows("a"), plain, 1, 1e-3, 4, negatives=3, prompts={"a": "find: "})
    feed = StageFeed(stage)
    rows_of = [stage.rows[i] for i in feed[0].rows]
    columns = feed[0].features(model)
    assert len(columns) == 5
    assert columns[0]["text"] == [row.text for row in rows_of]
    assert columns[0]["prompt_length"].tolist() == [3] * 4
    assert all("prompt_length" not in column for column in columns[1:])
    drawn = [{column["text"][i] for column in columns[2:]} for i in range(4)]
    assert drawn == [set(row.negatives) for row in rows_of]  # two of them, the third a repetition


def test_every_batch_is_of_one_source_and_stages_follow(model):
    seen = []

    class Watch(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.loss = InfoNCE(model, mask=other_rows)

        def forward(self, features, labels):
            seen.append({text.split()[0] for text in features[0]["text"]})
            return self.loss(features, labels)

    ended = []
    stages = [
        TrainingStage(rows("a"), Watch, 2, 1e-3, 4, negatives=1),
        TrainingStage(rows("a") + rows("b"), Watch, 6, 1e-3, 4, negatives=1),
    ]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    histories = train_in_stages(model, stages, after=lambda stage: ended.append((stage, len(seen))))
    assert [len(h) for h in histories] == [2, 6]
    assert ended == [(0, 2), (1, 8)]
    assert all(len(sources) == 1 for sources in seen)
    assert seen[:2] == [{"a"}, {"a"}]
    assert {"b"} in seen
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_loss_falls_on_what_can_be_learned(model):
    stage = TrainingStage(rows("a"), plain, 25, 3e-3, 8, negatives=1)
    (history,) = train_in_stages(model, [stage])
    assert np.mean(history[-3:]) < 0.7 * history[0]


def test_bad_rows(model):
    with pytest.raises(EmptyInput, match="Stage 1"):
        train_in_stages(model, [TrainingStage([], plain, 1, 1e-3, 4)])
    with pytest.raises(InputError, match="Row 0 of stage 1 needs a positive and negatives"):
        train_in_stages(model, [TrainingStage(rows("a", negatives=0), plain, 1, 1e-3, 4, negatives=1)])


def test_an_interrupted_training_goes_on_in_its_stage(model, tmp_path):
    import copy

    stages = [TrainingStage(rows("a"), plain, 3, 1e-2, 4, negatives=1), TrainingStage(rows("b"), plain, 5, 1e-2, 4)]
    whole, again = copy.deepcopy(model), copy.deepcopy(model)
    expected = train_in_stages(whole, stages)

    class Killed(Exception):
        pass

    calls = []

    def killer(done, total):
        calls.append(done)
        if len(calls) == 6:  # the third step of the second stage
            raise Killed

    with pytest.raises(Killed):
        train_in_stages(copy.deepcopy(model), stages, progress=killer, keep=tmp_path)
    assert train_in_stages(again, stages, keep=tmp_path) == expected
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
