"""A small vision transformer over the patches of one line of drawn text, and masked pre-training (PIXEL)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from isometry.errors import DimensionMismatch, InputError


@dataclass(frozen=True)
class PixelConfig:
    """Sizes of a pixel transformer; PIXEL-base has 256 pixels a patch, 768, 12 layers, 12 heads, 529 positions."""

    patch_pixels: int = 256
    dim: int = 192
    layers: int = 4
    heads: int = 4
    positions: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.patch_pixels, self.dim, self.layers, self.heads, self.positions) < 1 or self.dim % self.heads:
            raise InputError(f"A pixel transformer needs sizes >= 1 and a width divisible by its heads, got {self}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}.")


class PixelTransformer(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021, pre-norm) over a line of patches, with mean pooling.

    Examples
    --------
    >>> model = PixelTransformer(PixelConfig(patch_pixels=6, dim=8, layers=1, heads=2, positions=5))
    >>> model(torch.rand(3, 4, 6), torch.tensor([4, 2, 3])).shape
    torch.Size([3, 8])
    """

    def __init__(self, config: PixelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Linear(config.patch_pixels, config.dim)
            self.places = nn.Parameter(0.02 * torch.randn(config.positions, config.dim))
            self.blocks = _blocks(config.dim, config.heads, config.layers, config.dropout)
            self.norm = nn.LayerNorm(config.dim)

    def forward(self, patches: Tensor, counts: Tensor) -> Tensor:
        """Return the mean of the patch states, ``[b, d]``.

        Parameters
        ----------
        patches
            Ink ``[b, s, patch_pixels]``.
        counts
            int64 ``[b]``: patches in use; the others have no influence.
        """
        mask = in_use(patches, counts)
        states = self.states(patches, mask)
        weight = mask[..., None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)

    def states(self, patches: Tensor, mask: Tensor) -> Tensor:
        """Return the states ``[b, s, d]`` of patches, of which only those with ``mask`` (bool ``[b, s]``) are seen.

        Raises
        ------
        DimensionMismatch
            If patches have another size, or are more than there are positions.
        """
        config = self.config
        if patches.ndim != 3 or patches.shape[2] != config.patch_pixels or patches.shape[1] > config.positions:
            raise DimensionMismatch(
                f"patches must be [b, s <= {config.positions}, {config.patch_pixels}], got {list(patches.shape)}."
            )
        x = self.embed(patches) + self.places[: patches.shape[1]]
        states: Tensor = self.norm(self.blocks(x, src_key_padding_mask=~mask))
        return states

    def with_positions(self, positions: int) -> PixelTransformer:
        """Return a copy for lines of another length, its position embeddings interpolated linearly."""
        config = PixelConfig(**{**asdict(self.config), "positions": positions})
        resized = PixelTransformer(config)
        state = self.state_dict()
        state["places"] = nn.functional.interpolate(
            self.places.detach().T[None], size=positions, mode="linear", align_corners=True
        )[0].T
        resized.load_state_dict(state)
        return resized.train(self.training)


class MaskedPixels(nn.Module):
    """Masked autoencoder over a line of patches (He et al. 2022): spans are hidden, their pixels predicted.

    The encoder attends to visible patches alone; a shallow decoder sees their states and, in the hidden places, one
    learned vector. The loss is the mean squared error of each hidden patch's pixels, standardised patch by patch.

    Parameters
    ----------
    encoder
        What is kept.
    share
        Of the patches in use that is hidden.
    span
        Longest span, in patches.
    """

    def __init__(
        self, encoder: PixelTransformer, *, share: float = 0.25, span: int = 6, layers: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        if not 0 < share < 1 or min(span, layers) < 1:
            raise InputError(f"Masking needs 0 < share < 1, span and layers >= 1; got {share}, {span}, {layers}.")
        self.encoder, self.share, self.span = encoder, share, span
        config = encoder.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.hidden = nn.Parameter(0.02 * torch.randn(config.dim))
            self.places = nn.Parameter(0.02 * torch.randn(config.positions, config.dim))
            self.blocks = _blocks(config.dim, config.heads, layers, 0.0)
            self.pixels = nn.Linear(config.dim, config.patch_pixels)

    def forward(self, patches: Tensor, counts: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the loss; ``hidden`` bool ``[b, s]`` says which patches, the default is drawn (`span_mask`)."""
        mask = in_use(patches, counts)
        hidden = span_mask(counts, patches.shape[1], self.share, self.span) if hidden is None else hidden & mask
        states = self.encoder.states(patches, mask & ~hidden)
        states = torch.where(hidden[..., None], self.hidden, states) + self.places[: patches.shape[1]]
        guess = self.pixels(self.blocks(states, src_key_padding_mask=~mask))[hidden]
        true = patches[hidden]
        spread, centre = torch.std_mean(true, dim=1, keepdim=True, correction=0)
        loss: Tensor = (guess - (true - centre) / (spread + 1e-3)).pow(2).mean()
        return loss


def in_use(patches: Tensor, counts: Tensor) -> Tensor:
    """Return bool ``[b, s]``: the first ``counts`` patches of each row.

    Raises
    ------
    DimensionMismatch
        If a count is below 1 or above the patches there are.
    """
    if counts.shape != patches.shape[:1] or not 1 <= int(counts.min()) <= int(counts.max()) <= patches.shape[1]:
        raise DimensionMismatch(f"counts must be [{len(patches)}] within 1..{patches.shape[1]}, got {counts.tolist()}.")
    return torch.arange(patches.shape[1], device=patches.device) < counts[:, None]


def span_mask(counts: Tensor, width: int, share: float, span: int) -> Tensor:
    """Draw spans of 1 to ``span`` patches until ``share`` of each row is covered; bool ``[b, width]``.

    At least one patch is covered and one left in rows of two or more. Draws from torch's generator.
    """
    mask = torch.zeros(len(counts), width, dtype=torch.bool)
    for row, n in enumerate(counts.tolist()):
        wanted = min(max(1, round(share * n)), max(1, n - 1))
        while (left := wanted - int(mask[row].sum())) > 0:
            length = min(int(torch.randint(1, span + 1, ())), left)
            start = int(torch.randint(0, n - length + 1, ()))
            mask[row, start : start + length] = True
    return mask.to(counts.device)


def _blocks(dim: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    block = nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
    )  # fmt: skip
    return nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
