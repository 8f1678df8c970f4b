"""Raw texts beside token ids, for losses whose masks read texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def keep_texts(preprocess: Callable[..., Mapping[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Wrap a model's ``preprocess`` so that its features also carry the raw inputs under ``"text"``.

    Give the result to sentence-transformers' data collator as ``preprocess_fn``: masks that read texts, such as a guide
    with its own tokenizer, then see them as they were, not decoded from token ids.
    """

    def with_text(inputs: Sequence[str], **options: Any) -> dict[str, Any]:
        return {**preprocess(inputs, **options), "text": list(inputs)}

    return with_text
