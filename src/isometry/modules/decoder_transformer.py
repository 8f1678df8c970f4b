"""A decoder as the first module of a sentence-transformers model, with a switch for its attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from isometry.errors import EmptyInput, InputError
from isometry.modules.attention_mask import check_attention, run
from isometry.modules.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class DecoderTransformer(InputModule):  # type: ignore[misc]
    """Decoder body with causal or bidirectional attention, from texts to token states.

    Each text ends with the end-of-sequence token. Padding is told by lengths, never by the padding token's id, which
    may be the end-of-sequence token. ``prompt_length`` counts the tokens that lie wholly in the prompt, text by text:
    where the tokenizer joins the end of the prompt with the beginning of the text, the joined token is the text's.

    Parameters
    ----------
    model
        A transformers decoder; of a language model the body is taken. That it attends as asked is verified.
    tokenizer
        Its fast tokenizer.
    attention
        ``"bidirectional"`` or ``"causal"``.
    max_seq_length
        Tokens at most, prompt and end-of-sequence token included.
    all_layers
        Also hand on the states of every layer, as ``all_layer_embeddings``.

    Notes
    -----
    Load a saved model by ``SentenceTransformer(folder, trust_remote_code=True)``.
    """

    config_file_name = "decoder_transformer.json"
    config_keys = ("attention", "max_seq_length", "all_layers")

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        attention: str = "bidirectional",
        max_seq_length: int = 512,
        all_layers: bool = False,
    ) -> None:
        super().__init__()
        if attention not in ("bidirectional", "causal"):
            raise InputError(f"attention must be 'bidirectional' or 'causal', got {attention!r}.")
        if max_seq_length < 2:
            raise InputError(f"max_seq_length must leave room for a token and the end, got {max_seq_length}.")
        self.model, self.tokenizer = model.base_model, tokenizer
        self.attention, self.max_seq_length, self.all_layers = attention, max_seq_length, all_layers
        ends = [tokenizer.eos_token_id, tokenizer.sep_token_id]
        self._end = next((token for token in ends if token is not None), None)
        if self._end is None:
            raise InputError("The tokenizer has neither an end-of-sequence nor a separator token to end texts with.")
        check_attention(self.model, attention)

    @property
    def auto_model(self) -> PreTrainedModel:
        """The body."""
        return self.model

    def get_embedding_dimension(self) -> int:
        """Width of a token state."""
        return int(self.model.config.hidden_size)

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and, with a prompt, ``prompt_length``, int64 ``[b, t]`` and ``[b]``.

        Raises
        ------
        EmptyInput
            If there is no text.
        InputError
            If a prompt leaves no room for a text.
        """
        if not len(inputs):
            raise EmptyInput("There is no text to embed.")
        prompt = prompt or ""
        limit = min(self.max_seq_length, kwargs.get("max_length") or self.max_seq_length) - 1
        encoded = self.tokenizer([prompt + text for text in inputs], return_offsets_mapping=True, verbose=False)
        rows, lengths = [], []
        for number, (ids, spans) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            kept = ids[:-1] if ids and ids[-1] == self._end else ids
            inside = next((i for i, (_, end) in enumerate(spans[: len(kept)]) if end > len(prompt)), len(kept))
            if prompt and inside >= limit and len(kept) > inside:
                raise InputError(
                    f"text {number}: no tokens left to pool after removing the instruction "
                    f"(max_length={limit + 1}, instruction={inside} tokens); shorten it or raise max_seq_length."
                )
            rows.append([*kept[:limit], self._end])
            lengths.append(min(inside, limit))
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._end
        features = {
            "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        }
        return features | ({"prompt_length": torch.tensor(lengths)} if prompt else {})

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``token_embeddings`` ``[b, t, d]`` and, if asked for, ``all_layer_embeddings``."""
        ids, mask = features["input_ids"], features["attention_mask"]
        if self.all_layers:
            states = run(self.model, mask, input_ids=ids, kind=self.attention, all_layers=True)
            features["all_layer_embeddings"], features["token_embeddings"] = states, states[-1]
        else:
            features["token_embeddings"] = run(self.model, mask, input_ids=ids, kind=self.attention)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write body, tokenizer and configuration to a folder."""
        if any("lora_" in name for name, _ in self.model.named_parameters()):
            raise InputError(
                "The model holds low-rank adapters; merge them before saving (isometry.training.merge_lora)."
            )
        with quiet():
            self.model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:
        """Read what `save` wrote, from a folder or the hub."""
        from transformers import AutoModel, AutoTokenizer

        places = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        found = {k: v for k, v in kwargs.items() if k in places}
        folder = cls.load_dir_path(model_name_or_path, **found)
        with quiet():
            model = AutoModel.from_pretrained(folder, dtype="auto", **(kwargs.get("model_kwargs") or {}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        module: Self = cls(model, tokenizer, **cls.load_config(model_name_or_path, **found))
        module.eval()
        return module
