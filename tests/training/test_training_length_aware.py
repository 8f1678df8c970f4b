"""Parts of like length, and gradient caching: the same loss and gradients as the whole batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isometry.errors import EmptyInput, InputError
from isometry.training import embed_cached, grad_cache
from isometry.training.length_aware import LengthAware, length_parts


class _Embedder(nn.Module):
    """Masked mean of token embeddings that have looked at each other, with dropout if asked."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer = nn.Embedding(50, 8), nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, features):
        mask = features["attention_mask"].bool()
        self.seen.append(tuple(mask.shape))
        states = self.layer(self.table(features["input_ids"]), src_key_padding_mask=~mask)
        weight = mask[..., None].float()
        return {"sentence_embedding": (states * weight).sum(1) / weight.sum(1)}


def _batch(lengths, *, left: bool = False):
    generator = torch.Generator().manual_seed(len(lengths))
    ids = torch.randint(1, 50, (len(lengths), max(lengths)), generator=generator)
    places = torch.arange(max(lengths))[None, :]
    size = torch.tensor(lengths)[:, None]
    mask = (places >= max(lengths) - size) if left else (places < size)
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "text": [str(n) for n in lengths]}


def _gradients(model: nn.Module, run) -> list[torch.Tensor]:
    model.zero_grad()
    run().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def _loss(vectors: torch.Tensor) -> torch.Tensor:
    return (vectors @ vectors.T / 0.5).logsumexp(1).sum()


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("cache_above", [None, 0])
def test_parts_give_the_vectors_and_gradients_of_the_whole_batch(left, cache_above):
    model = _Embedder()
    aware = LengthAware(model, cache_above=cache_above, part_tokens=64)
    batch = _batch([40, 3, 4, 38, 3, 17, 2, 39], left=left)
    whole = _gradients(model, lambda: _loss(model(batch)["sentence_embedding"]))
    model.seen.clear()
    parts = _gradients(model, lambda: _loss(aware(batch)["sentence_embedding"]))
    assert len(model.seen) > 1
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(aware(batch)["sentence_embedding"], model(batch)["sentence_embedding"])


def test_texts_travel_with_their_rows():
    seen = []

    class Spy(_Embedder):
        def forward(self, features):
            seen.extend(zip(features["text"], features["attention_mask"].sum(1).tolist(), strict=True))
            return super().forward(features)

    LengthAware(Spy())(_batch([60, 2, 59, 3]))
    assert all(text == str(length) for text, length in seen)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(8, 2000))
def test_every_row_is_in_one_part_and_no_part_is_too_large(lengths, most):
    parts = length_parts(lengths, most=most)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts:
        padded = len(part) * -(-max(lengths[row] for row in part) // 8) * 8
        assert padded <= most or len(part) == 1
    free = length_parts(lengths)
    cost = sum(len(part) * -(-max(lengths[row] for row in part) // 8) * 8 + 96 for part in free)
    assert cost <= len(lengths) * -(-max(lengths) // 8) * 8 + 96  # never worse than one part


def test_cached_gradients_equal_those_of_the_whole_batch_with_dropout():
    """Each chunk is embedded twice under the same random numbers, so the mask of dropout is the same."""
    model = _Embedder(dropout=0.3).double()
    batch = {**_batch([5] * 12)}
    chunks = [{k: v[i : i + 4] for k, v in batch.items()} for i in range(0, 12, 4)]

    def embed(chunk):
        return model(chunk)["sentence_embedding"]

    torch.manual_seed(3)
    whole = _gradients(model, lambda: _loss(torch.cat([embed(chunk) for chunk in chunks])))
    torch.manual_seed(3)
    model.zero_grad()
    value = grad_cache(embed, chunks, _loss)
    cached = [p.grad for p in model.parameters() if p.grad is not None]
    assert not value.requires_grad
    for a, b in zip(whole, cached, strict=True):
        assert (a - b).abs().max() <= 1e-6 * a.abs().max().clamp(min=1e-12)


@pytest.mark.parametrize("size", [1, 3, 5, 12])
def test_chunk_size_changes_neither_loss_nor_gradients(size):
    model = _Embedder().double()
    batch = _batch([5] * 12)

    def run():
        chunks = [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, 12, size)]
        return _loss(embed_cached(lambda chunk: model(chunk)["sentence_embedding"], chunks))

    whole = _gradients(model, lambda: _loss(model(batch)["sentence_embedding"]))
    for a, b in zip(whole, _gradients(model, run), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_bad_input():
    with pytest.raises(EmptyInput, match="no chunk"):
        embed_cached(lambda x: x, [])
    with pytest.raises(InputError, match="part_tokens"):
        LengthAware(_Embedder(), part_tokens=0)
