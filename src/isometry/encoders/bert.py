"""BERT's forward pass without padding, in float32, bfloat16 or with 8-bit products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Pooled = Literal["mean", "cls", "last"]
FAMILIES = {"bert": 0, "roberta": 1, "xlm-roberta": 1}  # positions start after the padding id in the RoBERTa family


def supports(config: dict[str, Any]) -> bool:
    """Whether `Bert` computes exactly the model that a Hugging Face ``config.json`` describes."""
    return (
        config.get("model_type") in FAMILIES
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
        and not config.get("add_cross_attention", False)
        and "quantization_config" not in config
    )


def packs_weights() -> bool:
    """Whether oneDNN can keep weights in its own blocked layout."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


class _Linear:
    """An affine map whose weights are laid out for oneDNN once, not at every call (1.1x in either precision)."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, gelu: bool = False) -> None:
        self.gelu, self.packed = gelu, packs_weights()
        weight, self.bias = weight.to(dtype).contiguous(), bias.to(dtype).contiguous()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packed:
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if self.gelu else y
        attribute, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        y = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, attribute, [], algorithm)
        return y  # type: ignore[no-any-return]


class _Int8Linear:
    """An affine map by 8-bit products: one scale per output channel and, found anew for each token, one per row of x.

    A single scale for all tokens of a batch costs most of the fidelity, since a few channels of a few tokens are large.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> None:
        weight = weight.float()
        self.gelu, self.bias = gelu, bias.float().clone()
        self.scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
        self.weight = (weight / self.scale[:, None]).round().to(torch.int8).t()

    def __call__(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12).div_(127)
        product = torch._int_mm((x / scale).round_().to(torch.int8), self.weight)
        y = product.float().mul_(self.scale).mul_(scale).add_(self.bias)
        return F.gelu(y) if self.gelu else y


class _Norm:
    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype) -> None:
        self.weight, self.bias, self.epsilon = weight.to(dtype).clone(), bias.to(dtype).clone(), epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class _Layer:
    qkv: _Linear | _Int8Linear
    attended: _Linear | _Int8Linear
    attended_norm: _Norm
    wide: _Linear | _Int8Linear
    narrow: _Linear | _Int8Linear
    norm: _Norm


class Bert:
    """BERT / RoBERTa / XLM-RoBERTa encoder over concatenated texts (Devlin et al., 2019; arXiv:1810.04805).

    Tokens of all texts of a batch lie one after the other, so nothing is spent on padding: linear layers and norms see
    one matrix ``[t, d]``, query, key and value come of one product, and attention runs over runs of equal length.

    Parameters
    ----------
    weights
        Tensors by their Hugging Face names, with or without the prefix of the base model.
    config
        The model's ``config.json``; `supports` must hold.
    dtype
        Of weights and activations from the first norm on; sums inside norms and products are float32 in either case.
        ``torch.int8``: 8-bit products between float32 activations.
    """

    def __init__(self, weights: dict[str, Tensor], config: dict[str, Any], dtype: torch.dtype) -> None:
        prefixes = ("", "bert.", "roberta.")
        prefix = next(p for p in prefixes if f"{p}embeddings.word_embeddings.weight" in weights)
        get = {k.removeprefix(prefix): v for k, v in weights.items()}
        epsilon = float(config.get("layer_norm_eps", 1e-12))
        self.heads, self.dim = int(config["num_attention_heads"]), int(config["hidden_size"])
        self.dtype = torch.float32 if dtype == torch.int8 else dtype
        self.first_position = FAMILIES[config["model_type"]] * (int(config.get("pad_token_id") or 0) + 1)
        # Look-ups cost nothing: the tables stay in float32. Cloned, so that no file stays mapped.
        self.words = get["embeddings.word_embeddings.weight"].float().clone()
        self.positions = (
            get["embeddings.position_embeddings.weight"].float() + get["embeddings.token_type_embeddings.weight"][0]
        )
        norm = get["embeddings.LayerNorm.weight"], get["embeddings.LayerNorm.bias"]
        self.norm = _Norm(*norm, epsilon, torch.float32)
        self.layers = [
            _layer(get, f"encoder.layer.{i}.", epsilon, dtype) for i in range(int(config["num_hidden_layers"]))
        ]

    @property
    def max_length(self) -> int:
        """Longest text in tokens that there are positions for."""
        return len(self.positions) - self.first_position

    @torch.inference_mode()
    def __call__(self, texts: Sequence[NDArray[np.int32]], pooling: Pooled) -> Tensor:
        """Return pooled vectors, float32 ``[n, d]``, of token ids; fastest if texts of one length are neighbours."""
        lengths = np.array([len(ids) for ids in texts])
        runs = [(length, len(list(run))) for length, run in groupby(lengths.tolist())]
        starts = np.cumsum([0, *(length * count for length, count in runs)]).tolist()
        spans = [(s, s + n * length, n, length) for s, (length, n) in zip(starts, runs, strict=False)]
        ids = torch.from_numpy(np.concatenate(texts).astype(np.int64))
        places = np.concatenate([np.arange(length) for length in lengths]) + self.first_position
        x = self.norm(self.words[ids].add_(self.positions[torch.from_numpy(places)])).to(self.dtype)
        for layer in self.layers:
            attended = layer.attended(self._attend(layer.qkv(x), spans))
            x = layer.attended_norm(attended.add_(x))
            x = layer.norm(layer.narrow(layer.wide(x)).add_(x))
        x = x.float()
        return torch.cat([_pool(x[a:b].view(n, length, -1), pooling) for a, b, n, length in spans])

    def _attend(self, qkv: Tensor, spans: list[tuple[int, int, int, int]]) -> Tensor:
        out = qkv.new_empty(len(qkv), self.dim)
        for a, b, n, length in spans:
            q, k, v = qkv[a:b].view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            heads = F.scaled_dot_product_attention(q, k, v)
            out[a:b].view(n, length, self.heads, -1).copy_(heads.transpose(1, 2))
        return out


def _pool(x: Tensor, pooling: Pooled) -> Tensor:
    if pooling == "mean":
        return x.mean(dim=1)
    return x[:, 0 if pooling == "cls" else -1]


def _layer(get: dict[str, Tensor], at: str, epsilon: float, dtype: torch.dtype) -> _Layer:
    def linear(*names: str, gelu: bool = False) -> _Linear | _Int8Linear:
        parts = [(get[f"{at}{name}.weight"], get[f"{at}{name}.bias"]) for name in names]
        weight, bias = torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])
        return _Int8Linear(weight, bias, gelu=gelu) if dtype == torch.int8 else _Linear(weight, bias, dtype, gelu=gelu)

    def norm(name: str) -> _Norm:
        kind = torch.float32 if dtype == torch.int8 else dtype
        return _Norm(get[f"{at}{name}.weight"], get[f"{at}{name}.bias"], epsilon, kind)

    return _Layer(
        qkv=linear(*(f"attention.self.{name}" for name in ("query", "key", "value"))),
        attended=linear("attention.output.dense"),
        attended_norm=norm("attention.output.LayerNorm"),
        wide=linear("intermediate.dense", gelu=True),
        narrow=linear("output.dense"),
        norm=norm("output.LayerNorm"),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file."""
    from safetensors.torch import load_file

    return load_file(path)
