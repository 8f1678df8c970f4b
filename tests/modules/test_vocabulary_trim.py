"""A trimmed model is the whole one on the tokens it keeps."""

import pytest
import torch

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import EmptyInput, InputError
from isometry.modules.vocabulary_trim import trim_vocabulary


@pytest.mark.parametrize("tied", [True, False])
def test_states_and_predictions_of_kept_tokens(tied):
    lm = tiny_decoder(30, dim=8, heads=2)
    if not tied:
        lm.config.tie_word_embeddings = False
        lm.lm_head.weight = torch.nn.Parameter(torch.randn(30, 8, generator=torch.Generator().manual_seed(1)))
    keep = [7, 3, 29, 3, 12]
    small, number = trim_vocabulary(lm, keep)
    assert number == {3: 0, 7: 1, 12: 2, 29: 3}
    ids = torch.tensor([[3, 29, 12, 7]])
    new = torch.tensor([[number[int(i)] for i in ids[0]]])
    with torch.no_grad():
        torch.testing.assert_close(small.base_model(new)[0], lm.base_model(ids)[0])
        torch.testing.assert_close(small(new).logits, lm(ids).logits[..., sorted(number)])
    assert small.config.vocab_size == 4
    assert lm.get_input_embeddings().weight.shape[0] == 30


def test_bad_input():
    lm = tiny_decoder(10, dim=8, heads=2)
    with pytest.raises(EmptyInput):
        trim_vocabulary(lm, [])
    with pytest.raises(InputError, match=r"0\.\.9"):
        trim_vocabulary(lm, [10])
