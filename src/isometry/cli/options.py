"""Options several commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from isometry.encoders import TextEncoder

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")]
CollectionOption = Annotated[
    str | None, typer.Option("--collection", "-c", help="Name or path of the collection; default: the last indexed.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Encoder: minilm, a model folder, or a hub name.")
]
EngineOption = Annotated[str | None, typer.Option("--engine", help="fast (reduced precision) or torch (reference).")]
PoolingOption = Annotated[
    str | None, typer.Option(help="For a plain model folder that does not say it: mean, cls or last.")
]
FusionOption = Annotated[str, typer.Option(help="How hybrid search joins both: scores or rrf.")]
DataRootOption = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of data sets, looked at first.", show_default=False)
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder to write the model to.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def encoder(model: str | None, engine: str | None, pooling: str | None = None) -> TextEncoder:
    """Load the encoder that flags or settings name."""
    from isometry.encoders import load
    from isometry.workbench.places import settings

    chosen = settings()
    return load(model or chosen.model, engine=engine or chosen.engine, pooling=pooling)


def collection_name(name: str | None) -> str:
    """Return the collection that a flag or the settings name."""
    from isometry.workbench.places import settings

    return name or settings().collection


def data_root(root: Path | None) -> Path | None:
    """Return the data folder that a flag or the settings name."""
    from isometry.workbench.places import settings

    kept = settings().data_root
    return root or (Path(kept) if kept else None)
