"""Causal2Vec as the first module of a SentenceTransformer: two tokenizers, two transformers, one vector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from isometry.errors import InputError
from isometry.modules.contextual_token import ContextualToken


class ContextualDecoder(InputModule):  # type: ignore[misc]
    """A causal decoder behind a contextual token, from texts to vectors (Causal2Vec, arXiv:2507.23386).

    Parameters
    ----------
    model
        The two transformers and the projector between them.
    encoder_tokenizer, tokenizer
        The encoder's and the decoder's own.
    max_seq_length
        Tokens the decoder reads; the encoder reads its own window of the text, without the prompt.
    add_eos
        End every text with the decoder's end-of-sequence token, whose state is read out.

    Examples
    --------
    ``SentenceTransformer(modules=[ContextualDecoder(ContextualToken(encoder, body), encoder_tokenizer, tokenizer)])``
    """

    config_keys: list[str] = ["max_seq_length", "add_eos", "encoder_pooling", "readout", "after"]  # noqa: RUF012

    def __init__(
        self,
        model: ContextualToken,
        encoder_tokenizer: Any,
        tokenizer: Any,
        *,
        max_seq_length: int = 512,
        add_eos: bool = True,
    ) -> None:
        super().__init__()
        if add_eos and tokenizer.eos_token is None:
            raise InputError("The decoder's tokenizer has no end-of-sequence token: name one, or pass add_eos=False.")
        self.model, self.encoder_tokenizer, self.tokenizer = model, encoder_tokenizer, tokenizer
        self.max_seq_length, self.add_eos = max_seq_length, add_eos
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def encoder_pooling(self) -> str:
        """How the encoder's states become one."""
        return self.model.encoder_pooling

    @property
    def readout(self) -> str:
        """Which states make the vector."""
        return self.model.readout

    @property
    def after(self) -> int:
        """Real tokens ahead of the soft one."""
        return self.model.after

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.model.out_dim

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Tokenize for both; a prompt (instruction) goes to the decoder alone."""
        texts = [str(text).strip() for text in inputs]
        window = min(self.encoder_tokenizer.model_max_length, self.model.encoder.config.max_position_embeddings)
        read = self.encoder_tokenizer(
            texts, padding=True, truncation=True, max_length=window, return_tensors="pt", add_special_tokens=True
        )
        end = self.tokenizer.eos_token if self.add_eos else ""
        room = self.max_seq_length - self.add_eos
        ids = self.tokenizer([(prompt or "") + text for text in texts], truncation=True, max_length=room)["input_ids"]
        tail = [self.tokenizer.convert_tokens_to_ids(end)] if end else []
        spoken = self.tokenizer.pad({"input_ids": [[*row, *tail] for row in ids]}, return_tensors="pt")
        return {
            "input_ids": spoken["input_ids"],
            "attention_mask": spoken["attention_mask"],
            "encoder_input_ids": read["input_ids"],
            "encoder_attention_mask": read["attention_mask"],
        }

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Put the vectors ``[b, d]`` under ``"sentence_embedding"``."""
        context = self.model.context(features["encoder_input_ids"], features["encoder_attention_mask"])
        vectors = self.model(context, features["input_ids"], features["attention_mask"])
        return features | {"sentence_embedding": vectors}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write both transformers, both tokenizers and the projector (safetensors and JSON)."""
        folder = Path(output_path)
        for part, tokenizer in (("encoder", self.encoder_tokenizer), ("decoder", self.tokenizer)):
            getattr(self.model, part).save_pretrained(folder / part)
            tokenizer.save_pretrained(folder / part)
        save_file(self.model.projector.state_dict(), folder / "projector.safetensors")
        (folder / "contextual_decoder.json").write_text(json.dumps(self.get_config_dict(), indent=2), "utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> ContextualDecoder:
        """Read what `save` wrote."""
        from transformers import AutoModel, AutoTokenizer

        folder = Path(model_name_or_path, subfolder)
        if not (folder / "contextual_decoder.json").is_file():
            raise InputError(f"{folder} has no contextual_decoder.json: give a folder ContextualDecoder wrote.")
        config = json.loads((folder / "contextual_decoder.json").read_text("utf-8"))
        encoder, decoder = (AutoModel.from_pretrained(folder / part) for part in ("encoder", "decoder"))
        how = {key: config[key] for key in ("encoder_pooling", "readout", "after")}
        model = ContextualToken(encoder, decoder, **how)
        model.projector.load_state_dict(load_file(folder / "projector.safetensors"))
        tokenizers = [AutoTokenizer.from_pretrained(folder / part) for part in ("encoder", "decoder")]
        return cls(model, *tokenizers, max_seq_length=config["max_seq_length"], add_eos=config["add_eos"])
