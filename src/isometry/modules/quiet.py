"""Keeping the bars and reports of the libraries below off the terminal: a library reports through its callers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from logging import getLogger


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch off bars and reports of the libraries below inside a block, then put them back as they were."""
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging

    wrapper = getLogger("sentence_transformers")
    wrapper_level = wrapper.level
    wrapper.setLevel("ERROR")
    level, shown, bar = logging.get_verbosity(), logging.is_progress_bar_enabled(), gguf_reader.tqdm
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf_reader.tqdm = functools.partial(bar, disable=True)  # this one does not ask transformers' setting
    try:
        yield
    finally:
        gguf_reader.tqdm = bar
        wrapper.setLevel(wrapper_level)
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
