"""Progress bars are off inside the block, and as they were afterwards, even after an error."""

import pytest
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging

from isometry.modules.quiet import quiet


def fail_quietly():
    with quiet():
        assert not logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == logging.ERROR
        assert modeling_gguf_pytorch_utils.tqdm([]).disable
        raise ZeroDivisionError


@pytest.mark.parametrize("shown", [True, False])
def test_bars_are_put_back_as_they_were(shown):
    before, bar = logging.is_progress_bar_enabled(), modeling_gguf_pytorch_utils.tqdm
    level = logging.get_verbosity()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        with pytest.raises(ZeroDivisionError):
            fail_quietly()
        assert logging.is_progress_bar_enabled() == shown
        assert modeling_gguf_pytorch_utils.tqdm is bar
        assert logging.get_verbosity() == level
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
