"""Pre-training a sentence vector through a bottleneck: a weak decoder must restore the text from it.

The decoder has one block and reads a heavily masked copy of the text, so what it cannot guess must come from the
vector at position 0. Embeddings and prediction head are the encoder's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError
from isometry.modules.attention_mask import run
from isometry.modules.layer_cut import cut_layers
from isometry.modules.layer_states import layer_readouts
from isometry.modules.mlm import PredictionHead, masked_loss, masked_losses


class BottleneckDecoder(nn.Module):
    """One-block decoder that sees a vector and a masked copy of the text (RetroMAE, arXiv:2205.12035, basic form).

    Parameters
    ----------
    body
        The encoder's transformer; its embeddings are shared, its blocks are not.
    seed
        Of the initial weights.
    """

    def __init__(self, body: Any, *, seed: int = 0) -> None:
        super().__init__()
        config = cut_layers(body, 1).config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = type(body)(config)
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None
        words = body.get_input_embeddings()
        for name, child in body.named_children():
            if any(module is words for module in child.modules()):
                setattr(self.body, name, child)

    def forward(self, vector: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return states ``[b, t, d]`` of a masked copy whose first token is replaced by a vector ``[b, d]``."""
        if vector.shape != (len(input_ids), self.body.config.hidden_size):
            raise DimensionMismatch(
                f"The decoder needs one vector of width {self.body.config.hidden_size} for each of {len(input_ids)} "
                f"texts, got {list(vector.shape)}."
            )
        words = self.body.get_input_embeddings()(input_ids)
        embedded = torch.cat([vector[:, None].to(words.dtype), words[:, 1:]], dim=1)
        states: Tensor = self.body(inputs_embeds=embedded, attention_mask=attention_mask).last_hidden_state
        return states


class RetroMAE(nn.Module):
    """RetroMAE pre-training (arXiv:2205.12035): masked language modelling, and restoring the text from [CLS].

    Parameters
    ----------
    mlm
        A masked language model, trained in place.
    bottleneck
        Weight of the decoder's loss; 0 leaves plain masked language modelling.
    seed
        Of the decoder's initial weights.
    """

    def __init__(self, mlm: nn.Module, *, bottleneck: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        self.mlm, self.head, self.bottleneck = mlm, PredictionHead(mlm), bottleneck
        self.decoder = BottleneckDecoder(mlm.base_model, seed=seed)

    def parts(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the encoder's and the decoder's loss of a batch from `isometry.modules.mlm.MaskingCollator`.

        An entry ``"may_attend"``, bool ``[b, t, t]``, restricts the encoder's attention, e.g. to a table's structure.
        """
        states = self.states(batch)
        return masked_loss(states, batch["labels"], self.head), self.restore(states[:, 0], batch)

    def states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the encoder's last states ``[b, t, d]``; the first token's are the vectors."""
        body: Any = self.mlm.base_model
        ids, mask = batch["input_ids"], batch["attention_mask"]
        if "may_attend" in batch:
            return run(body, mask, input_ids=ids, may_attend=batch["may_attend"])
        states: Tensor = body(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def restore(self, vector: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the decoder's loss from vectors ``[b, d]``: the only way from it into the encoder's blocks."""
        states = self.decoder(vector, batch["decoder_input_ids"], batch["decoder_attention_mask"])
        return masked_loss(states, batch["decoder_labels"], self.head)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        if not self.bottleneck:
            return masked_loss(self.states(batch), batch["labels"], self.head)
        encoder, decoder = self.parts(batch)
        return encoder + self.bottleneck * decoder


class SizedMAE(nn.Module):
    """Masked auto-encoding on a menu of sizes (SMAE of Starbucks, arXiv:2410.13230).

    For each size (n, d) the states after n blocks, their first d coordinates, go through the prediction head: once for
    the masked tokens, once at [CLS], whose transformed state a one-block decoder restores the text from. The loss is
    the mean over sizes of the mean of both.

    Parameters
    ----------
    mlm
        A masked language model, trained in place.
    menu
        Sizes (layers, dims).
    bottleneck
        Whether there is a decoder; without it only the masked language modelling of every size remains.
    seed
        Of the decoder's initial weights.
    """

    def __init__(
        self, mlm: nn.Module, menu: Sequence[tuple[int, int]], *, bottleneck: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        config: Any = mlm.config
        for layers, dims in menu:
            if not (0 <= layers <= config.num_hidden_layers and 1 <= dims <= config.hidden_size):
                raise InputError(f"The model has no size ({layers}, {dims}).")
        self.mlm, self.head, self.menu, self.bottleneck = mlm, PredictionHead(mlm), tuple(menu), bottleneck
        self.decoder = BottleneckDecoder(mlm.base_model, seed=seed)

    def mlm_losses(self, batch: Mapping[str, Tensor]) -> dict[tuple[int, int], Tensor]:
        """Return the masked language modelling loss of each text ``[b]`` at each size."""
        return {size: masked_losses(states, batch["labels"], self.head) for size, states in self._states(batch).items()}

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch from `isometry.modules.mlm.MaskingCollator`."""
        losses = []
        for states in self._states(batch).values():
            encoder = masked_loss(states, batch["labels"], self.head)
            if not self.bottleneck:
                losses.append(encoder)
                continue
            vector = self.head.transform(states[:, 0])
            restored = self.decoder(vector, batch["decoder_input_ids"], batch["decoder_attention_mask"])
            losses.append((encoder + masked_loss(restored, batch["decoder_labels"], self.head)) / 2)
        return torch.stack(losses).mean()

    def _states(self, batch: Mapping[str, Tensor]) -> dict[tuple[int, int], Tensor]:
        body: Any = self.mlm.base_model
        states = layer_readouts(body, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return {(n, d): keep_dims(states[n], d) for n, d in self.menu}


def keep_dims(states: Tensor, dims: int) -> Tensor:
    """Return states ``[..., D]`` with zeros after the first ``dims`` coordinates.

    A linear layer W applied to that is ``W[:, :dims]`` applied to the prefix, so one head serves every width.

    >>> keep_dims(torch.ones(1, 3), 2).tolist()
    [[1.0, 1.0, 0.0]]
    """
    return states * (torch.arange(states.shape[-1], device=states.device) < dims)
