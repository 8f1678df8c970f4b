"""The yes/no reranker: prompts, logits of two tokens, padding, training, the stage, refusals."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from isometry.encoders.backbones import tiny_decoder
from isometry.errors import DataFormatError, EmptyInput, InputError
from isometry.modules.yes_no import YesNoModel, YesNoPrompt, answer_ids
from isometry.ranking import YesNo
from isometry.training.cross_encoder import Schedule
from isometry.training.yes_no import train_yes_no, yes_no_loss
from isometry.types import Hits, Queries

WORDS = ["yes", "no", "red", "green", "blue", "ship", "tree", "house", "judge", ":", "?", "answer", "maybe"]
CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}answer :"
PROMPT = YesNoPrompt(system="judge", content="{task} {query} ? ")


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[UNK]", "[PAD]", *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")


@pytest.fixture
def model(tokenizer):
    lm = tiny_decoder(len(tokenizer), dim=32, layers=2, heads=4)
    return YesNoModel(lm, tokenizer, task="red", prompt=PROMPT, max_tokens=24)


PAIRS = [("red ship", "red ship"), ("tree", "blue house green tree red"), ("blue", "ship"), ("green ? :", "tree tree")]


def test_score_is_the_sigmoid_of_the_difference_of_two_logits(model):
    with torch.no_grad():
        yes, no = model.logits(PAIRS).unbind(1)
    np.testing.assert_allclose(model.predict(PAIRS), (yes - no).numpy(), atol=1e-6)
    expected = (yes.exp() / (yes.exp() + no.exp())).numpy()
    np.testing.assert_allclose(model.probability(PAIRS), expected, atol=1e-6)
    assert model.predict([]).shape == (0,)
    with torch.no_grad():
        everything = model.next_token_logits(PAIRS)
    torch.testing.assert_close(everything[:, list(model.answer_ids)], torch.stack([yes, no], 1))


def test_a_pair_scores_the_same_alone_in_a_batch_and_padded_on_the_left(model):
    together = model.predict(PAIRS)
    alone = np.concatenate([model.predict([pair]) for pair in PAIRS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    rows = [model.tokens(*pair) for pair in PAIRS]
    longest = max(map(len, rows))
    ids = torch.tensor([[1] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model.lm(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    yes, no = model.answer_ids
    np.testing.assert_allclose(together, (logits[:, yes] - logits[:, no]).numpy(), atol=1e-5)


def test_prompt_is_kept_and_the_document_loses_its_end(model, tokenizer):
    assert tokenizer.decode(model.tokens("ship", "tree house")) == "judge red ship ? tree house answer :".replace(
        "answer", "[UNK]"
    )  # "Answer" with a capital is no word of this tokenizer
    long = model.tokens("ship", "tree " * 100)
    assert len(long) == 24
    assert tokenizer.decode(long[-2:]) == "[UNK] :"
    with pytest.raises(InputError, match="leave no room for a document"):
        model.tokens("ship " * 30, "tree")
    with pytest.raises(InputError, match="The prompt alone takes"):
        YesNoModel(model.lm, tokenizer, prompt=PROMPT, max_tokens=3)


def test_chat_template_is_used(model, tokenizer):
    tokenizer.chat_template = CHAT
    chat = YesNoModel(model.lm, tokenizer, task="red", prompt=YesNoPrompt("judge", PROMPT.content, " maybe"))
    shown = tokenizer.decode(chat.tokens("ship", "tree"))
    assert shown == "[UNK] : judge [UNK] : red ship ? tree answer : maybe"


def test_answers_must_be_single_known_tokens(tokenizer, model):
    assert answer_ids(tokenizer, ("yes", "no")) == (2, 3)
    with pytest.raises(InputError, match=r"'yes no' must be one token of the tokenizer, it is \['yes', 'no'\]"):
        answer_ids(tokenizer, ("yes no", "no"))
    with pytest.raises(InputError, match=r"'certainly' must be one token of the tokenizer, it is \['\[UNK\]'\]"):
        YesNoModel(model.lm, tokenizer, answers=("certainly", "no"))
    with pytest.raises(InputError, match="same token"):
        answer_ids(tokenizer, ("yes", "yes"))


def test_loss_is_the_cross_entropy_of_the_right_answer(model):
    labels = torch.tensor([True, False, False, True])
    logits = model.next_token_logits(PAIRS).detach()
    target = torch.tensor([2, 3, 3, 2])
    assert yes_no_loss(model, PAIRS, labels).item() == pytest.approx(float(cross_entropy(logits, target)), abs=1e-6)
    two = logits[:, 2:4]
    expected = float(cross_entropy(two, torch.tensor([0, 1, 1, 0])))
    assert yes_no_loss(model, PAIRS, labels, sft=False).item() == pytest.approx(expected, abs=1e-6)
    odds = model.predict(PAIRS) * np.where(labels.numpy(), 1, -1)
    assert expected == pytest.approx(np.mean([math.log1p(math.exp(-o)) for o in odds]), abs=1e-5)


@pytest.mark.parametrize("sft", [True, False])
def test_training_teaches_a_rule(model, sft):
    rng = np.random.default_rng(0)
    colours, things = ["red", "green", "blue"], ["ship", "tree", "house"]
    drawn = [(str(rng.choice(colours)), f"{rng.choice(things)} {rng.choice(colours)}") for _ in range(200)]
    labels = [query == document.split()[1] for query, document in drawn]
    before = model.lm.get_input_embeddings().weight.detach().clone()
    history = train_yes_no(
        model, drawn[:150], labels[:150], Schedule(150, 32, lr=3e-3), sft=sft, freeze_embeddings=True
    )
    assert history[-1] < history[0]
    odds, gold = model.predict(drawn[150:]), np.asarray(labels[150:])
    assert (odds[gold][:, None] > odds[~gold][None, :]).mean() > 0.85
    torch.testing.assert_close(model.lm.get_input_embeddings().weight.detach(), before, atol=0, rtol=0)
    assert model.lm.get_input_embeddings().weight.requires_grad


def test_low_rank_training_moves_the_blocks_alone_and_leaves_no_adapter(model):
    labels = [True, False, False, True]
    before = {name: p.detach().clone() for name, p in model.lm.named_parameters()}
    history = train_yes_no(model, PAIRS, labels, Schedule(60, 4, lr=2e-2), rank=4, sft=False)
    assert history[-1] < 0.5 * history[0]
    moved = {name for name, p in model.lm.named_parameters() if not torch.equal(p.detach(), before[name])}
    assert moved == {name for name, p in before.items() if "layers" in name and p.ndim == 2}
    assert all(p.requires_grad for p in model.parameters())


def test_an_interrupted_training_goes_on_and_ends_the_same(model, tmp_path):
    import copy

    from isometry.training import Checkpoints

    class Killed(Exception):
        pass

    def killer(done, total):
        if done == 5:
            raise Killed

    plan, labels = Schedule(8, 2, lr=1e-2), [True, False, False, True]
    whole = train_yes_no(model_of := copy.deepcopy(model), PAIRS, labels, plan, rank=2)
    keep = Checkpoints(tmp_path, every=2)
    with pytest.raises(Killed):
        train_yes_no(copy.deepcopy(model), PAIRS, labels, plan, rank=2, keep=keep, progress=killer)
    assert train_yes_no(model, PAIRS, labels, plan, rank=2, keep=keep) == whole
    np.testing.assert_array_equal(model.predict(PAIRS), model_of.predict(PAIRS))


def test_stage_orders_hits(model):
    texts = {"a": "red ship", "b": "tree", "c": "blue house"}
    hits = Hits.build(["0"], [[("a", 3.0), ("b", 2.0), ("c", 1.0)]])
    stage = YesNo(model, depth=2, texts=texts)
    found = stage(Queries.of(["red"]), hits)
    odds = dict(zip("ab", model.predict([("red", texts["a"]), ("red", texts["b"])]).tolist(), strict=True))
    assert found.ids.tolist() == sorted(odds, key=lambda i: -odds[i])
    assert "yes/no" in found.contributions
    other = YesNo(YesNoModel(model.lm, model.tokenizer, task="blue", prompt=PROMPT), texts=texts)
    assert stage.fingerprint != other.fingerprint
    assert stage.fingerprint == YesNo(model, depth=2, texts=texts).fingerprint


def test_wrong_input(model):
    with pytest.raises(EmptyInput, match="no pair"):
        model.logits([])
    for labels in ([True], [True] * 4, [False] * 4):
        with pytest.raises(InputError, match="as many labels"):
            train_yes_no(model, PAIRS, labels, Schedule(1))


def test_a_saved_model_scores_as_before_and_may_be_asked_something_else(model, tmp_path):
    model.save(tmp_path)
    again = YesNoModel.load(tmp_path)
    np.testing.assert_allclose(again.predict(PAIRS), model.predict(PAIRS), atol=1e-6)
    assert (again.task, again.prompt, again.max_tokens) == (model.task, model.prompt, model.max_tokens)
    assert not np.allclose(YesNoModel.load(tmp_path, task="blue").predict(PAIRS), model.predict(PAIRS))
    (tmp_path / "yes_no.json").write_text("{}")
    with pytest.raises(DataFormatError, match="cannot be read"):
        YesNoModel.load(tmp_path)
