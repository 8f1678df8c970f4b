"""A text encoder without a tokenizer: text is drawn, a vision transformer looks at it (arXiv:2402.08183)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from isometry.encoders.text import check_texts
from isometry.errors import CorruptStore, InputError, Truncated
from isometry.files import make_folder, write_whole
from isometry.modules.pixel_transformer import PixelConfig, PixelTransformer
from isometry.modules.text_renderer import TextRenderer
from isometry.types import FloatArray, Space


class PixelEncoder:
    """Draw texts and encode the pictures; an `Encoder`.

    Parameters
    ----------
    renderer
        How texts are drawn; its patches must be those of the model.
    model
        The vision transformer, trained or not.
    name
        Of the space.
    warn
        Whether to warn (`Truncated`) of texts longer than the line.

    Examples
    --------
    >>> renderer = TextRenderer(patches=8)
    >>> encoder = PixelEncoder(renderer, PixelTransformer(PixelConfig(renderer.patch_pixels, 8, 1, 2, 8)))
    >>> encoder.encode_query(["no tokens", "no tokens!"]).shape
    (2, 8)
    """

    similarity_fn_name = "cosine"

    def __init__(
        self, renderer: TextRenderer, model: PixelTransformer, *, name: str = "pixels", warn: bool = True
    ) -> None:
        config = model.config
        if config.patch_pixels != renderer.patch_pixels or config.positions < renderer.patches:
            raise InputError(
                f"The renderer makes up to {renderer.patches} patches of {renderer.patch_pixels} pixels, the model "
                f"takes {config.positions} of {config.patch_pixels}; give both the same sizes."
            )
        self.renderer, self.model, self.warn = renderer, model, warn
        self.space = Space(name, config.dim, revision=renderer.fingerprint)

    def inputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Draw texts: patches ``[n, s, patch_pixels]``, s the longest in use, and counts int64 ``[n]``."""
        images, counts, cut = self.renderer.render(texts)
        if self.warn and cut.any():
            warnings.warn(
                f"{int((cut > 0).sum())} of {len(texts)} texts were cut to {self.renderer.patches} patches "
                f"({int(cut.sum())} pixels left out).", Truncated, stacklevel=3,
            )  # fmt: skip
        return torch.from_numpy(self.renderer.to_patches(images, int(counts.max()))), torch.from_numpy(counts)

    def encode(self, inputs: Sequence[str], *, batch_size: int = 64) -> FloatArray:
        """Encode texts, float32 ``[n, d]`` of norm 1, in order."""
        texts = check_texts(inputs, empty=True)
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self.space.dim), np.float32)
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                vectors[rows] = normalize(self.model(*self.inputs([texts[row] for row in rows])), dim=-1).numpy()
        self.model.train(training)
        return vectors

    def encode_query(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 64) -> FloatArray:
        """Encode questions, float32 ``[n, d]``; ``prompt`` is drawn before each."""
        return self.encode(inputs if prompt is None else [prompt + text for text in inputs], batch_size=batch_size)

    def encode_document(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 64) -> FloatArray:
        """Encode documents, like questions."""
        return self.encode_query(inputs, prompt=prompt, batch_size=batch_size)

    def get_embedding_dimension(self) -> int:
        """Width of a vector."""
        return self.space.dim

    def save(self, folder: str | Path) -> None:
        """Write ``pixels.json`` and ``model.safetensors``; the font is named by its hash, not copied."""
        from safetensors.torch import save

        target, renderer = make_folder(folder), self.renderer
        sizes = {name: getattr(renderer, name) for name in ("size", "height", "patch_width", "patches", "words")}
        record = {"model": asdict(self.model.config), "renderer": sizes, "name": self.space.model,
                  "font": renderer.font_name, "fingerprint": renderer.fingerprint}  # fmt: skip
        write_whole(target / "model.safetensors", save(dict(self.model.state_dict())))
        write_whole(target / "pixels.json", json.dumps(record, indent=1).encode())

    @classmethod
    def load(cls, folder: str | Path, *, font: Path | None = None) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        font
            The font file, where it was not the default.

        Raises
        ------
        CorruptStore
            If files are missing or broken.
        InputError
            If the font is another than the model was trained with.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        source = Path(folder)
        try:
            record = json.loads((source / "pixels.json").read_text(encoding="utf-8"))
            renderer = TextRenderer(font, **record["renderer"])
            model = PixelTransformer(PixelConfig(**record["model"])).eval()
            model.load_state_dict(load_file(source / "model.safetensors"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptStore(f"{source} holds no pixel encoder, or it is broken ({error}); save it again.") from error
        if renderer.fingerprint != record["fingerprint"]:
            raise InputError(
                f"The model in {source} was trained on {record['font']} as of another file; name that font file."
            )
        return cls(renderer, model, name=record["name"])
