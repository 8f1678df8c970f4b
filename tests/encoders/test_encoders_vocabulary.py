"""Vocabulary extension: new words are one token, everything else stays as it was."""

import numpy as np
import pytest
import torch

from isometry.encoders import candidate_terms, extend_vocabulary, fertility
from isometry.errors import EmptyInput, InputError

CORPUS = ["The gNB-CU reports the 5QI of a QoS flow.", "A gNB-CU and a gNB-DU share one F1AP link.", "5QI is an index."]
PLAIN = ["A quick brown fox jumps.", "the price of tea in China", "nothing of that kind here: g, nb and 5 QI"]


@pytest.fixture(scope="module")
def model(minilm):
    return minilm.model


@pytest.fixture(scope="module")
def extension(model):
    return extend_vocabulary(model, ["gNB-CU", "gNB-DU", "5QI", "F1AP", "index"])


def test_terms_are_one_token_inside_a_sentence(model, extension):
    assert extension.added == ("gNB-CU", "gNB-DU", "5QI", "F1AP")
    assert extension.known == ("index",)
    assert extension.unmatched == ()
    number = extension.tokenizer.convert_tokens_to_ids("gNB-CU")
    ids = extension.tokenizer("The gNB-CU, a gnb-cu", add_special_tokens=False)["input_ids"]
    assert ids.count(number) == 2  # this tokenizer folds case, so both spellings are the term
    assert fertility(extension.tokenizer, CORPUS).per_word < fertility(model.tokenizer, CORPUS).per_word


def test_texts_without_the_terms_stay_bit_identical(model, extension):
    assert fertility(extension.tokenizer, PLAIN) == fertility(model.tokenizer, PLAIN)
    before, after = (m.encode(PLAIN, show_progress_bar=False) for m in (model, extension.model))
    assert np.array_equal(before, after)
    assert not np.array_equal(*(m.encode(CORPUS[:1], show_progress_bar=False) for m in (model, extension.model)))


def test_the_model_given_is_left_alone_and_the_copy_saves(model, extension, tmp_path):
    from sentence_transformers import SentenceTransformer

    assert len(model.tokenizer) == model[0].auto_model.get_input_embeddings().weight.shape[0] == 30522
    extension.model.save(str(tmp_path / "m"))
    loaded = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    vectors = [m.encode(CORPUS, show_progress_bar=False) for m in (extension.model, loaded)]
    assert np.array_equal(*vectors)


@pytest.mark.parametrize("keep_norms", [False, True])
def test_new_rows_are_means_of_their_pieces(model, keep_norms):
    found = extend_vocabulary(model, ["gNB-CU"], keep_norms=keep_norms)
    pieces = model.tokenizer("gNB-CU", add_special_tokens=False)["input_ids"]
    old = model[0].auto_model.get_input_embeddings().weight
    new = found.model[0].auto_model.get_input_embeddings().weight
    mean = old[pieces].mean(0)
    if keep_norms:
        assert torch.isclose(new[-1].norm(), old[pieces].norm(dim=1).mean(), rtol=1e-5)
        mean = mean * old[pieces].norm(dim=1).mean() / mean.norm()
    torch.testing.assert_close(new[-1], mean)
    assert torch.equal(new[:-1], old)


def test_terms_that_cannot_match_are_listed_and_not_added(model):
    found = extend_vocabulary(model, ["5QI", "5qi", " 6QI", "gNB-CU"])
    assert found.added == ("5QI", "gNB-CU")
    assert found.unmatched == ("5qi", " 6QI")  # a second spelling of the same token, and a space no word begins with
    assert len(found.tokenizer) == len(model.tokenizer) + 2


def test_nothing_to_add_leaves_the_weights(model):
    found = extend_vocabulary(model, ["index", "index"])
    assert found.added == ()
    assert found.model[0].auto_model.get_input_embeddings().weight.shape[0] == 30522


def test_a_decoder_with_spaces_inside_its_tokens():
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_level_tokenizer()
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    found = extend_vocabulary(lm, ["gNB-CU"], tokenizer=tokenizer)
    assert found.added == ("gNB-CU",)
    plain = tokenizer("the price", add_special_tokens=False)["input_ids"]
    assert found.tokenizer("the price", add_special_tokens=False)["input_ids"] == plain
    number = len(tokenizer)
    pieces = tokenizer("gNB-CU", add_special_tokens=False)["input_ids"]
    for table in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, table)().weight for model in (lm, found.model))
        expected = old[pieces].mean(0) * old[pieces].norm(dim=1).mean() / old[pieces].mean(0).norm()
        torch.testing.assert_close(new[number], expected)


def byte_level_tokenizer():
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer(add_prefix_space=False)
    trained.train_from_iterator(["the price of the cell, and the the the price,"] * 20, vocab_size=300)
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)


def test_candidates_are_frequent_and_broken(model):
    texts = [*CORPUS, "GNB-CU again", "the the the the the"]
    found = candidate_terms(model.tokenizer, texts, pieces=3, least=2)
    assert found == {"gNB-CU": 3}
    assert candidate_terms(model.tokenizer, texts, pieces=3, least=1, most=2).keys() == {"gNB-CU", "gNB-DU"}


def test_bad_input(model):
    with pytest.raises(EmptyInput, match="no word"):
        fertility(model.tokenizer, ["  "])
    with pytest.raises(InputError, match="has no tokenizer"):
        extend_vocabulary(torch.nn.Linear(2, 2), ["x"])
