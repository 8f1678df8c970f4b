"""The turns of a chat around a text, as a language model was trained to read them."""

from __future__ import annotations

from typing import Any, Final

_MARK: Final = "\ufffc"  # stands for the text while a chat template is rendered


def chat_frame(tokenizer: Any, system: str = "") -> tuple[str, str]:
    """Return what stands before and after a user's text, up to where the model's answer begins.

    Parameters
    ----------
    tokenizer
        Its chat template is used, with the generation prompt; without one the frame is made of plain lines.
    system
        What the model is told to do; left out where empty, though a template may put words of its own there.
    """
    if not getattr(tokenizer, "chat_template", None):
        return f"{system}\n" if system else "", "\nAnswer:\n"
    turns = [{"role": "system", "content": system}] if system else []
    text = tokenizer.apply_chat_template(
        [*turns, {"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True
    )
    before, _, after = text.partition(_MARK)
    return before, after
