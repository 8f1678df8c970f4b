"""Aligned encoders: a student that was trained into its teacher's space, and proof of it before vectors are mixed.

Equal width does not make equal spaces. A student's own `Space` never equals its teacher's, so an index of the teacher
refuses its vectors. `record_alignment` writes into the student's folder whose space it was aligned with and which
weights that holds for; `aligned` checks that record and only then lets the student's queries into that space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isometry.encoders.folders import ModelFolder, locate
from isometry.errors import DataFormatError, InputError, SpaceMismatch
from isometry.files import make_folder, write_whole
from isometry.types import FloatArray, Space, finite

if TYPE_CHECKING:
    from isometry.encoders.text import TextEncoder

RECORD: Final = "isometry/aligned_with.json"  # a folder of its own: no part of the model's fingerprint


@dataclass(frozen=True)
class Alignment:
    """Whose space a student was aligned with.

    Parameters
    ----------
    space
        The teacher's.
    student
        Fingerprint of the student's files when this was found.
    measured
        How well on texts held out, e.g. `isometry.spaces.least_squares.agreement`.
    """

    space: Space
    student: str
    measured: Mapping[str, float]


def record_alignment(folder: str | Path, space: Space, measured: Mapping[str, float]) -> Alignment:
    """Write into a saved student's folder that its vectors belong to ``space``.

    Parameters
    ----------
    folder
        Where the student was saved; saving it again, or training it further, makes the record void.
    space
        The teacher's, complete with revision and prompts.
    measured
        How well they agree.

    Raises
    ------
    InputError
        If the space has no revision, so that nobody could tell the teacher from another of its name.
    """
    if not space.revision:
        raise InputError(
            f"The space of {space.model} names no revision of its model; take the one of a loaded encoder."
        )
    path = Path(folder)
    alignment = Alignment(space, ModelFolder(path).fingerprint(), dict(measured))
    record = {"space": json.loads(space.to_json()), "student": alignment.student, "measured": finite(measured)}
    make_folder((path / RECORD).parent)
    write_whole(path / RECORD, json.dumps(record, indent=2, sort_keys=True).encode())
    return alignment


def alignment_of(name_or_path: str | Path) -> Alignment | None:
    """Return what a model's folder says about whose space it is aligned with; None where it says nothing.

    Raises
    ------
    DataFormatError
        If the record is broken.
    UnknownName
        If there is no such model.
    """
    path = locate(name_or_path)[1] / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Alignment(Space.from_json(json.dumps(record["space"])), str(record["student"]), dict(record["measured"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataFormatError(path, None, f"the record of alignment is broken ({error}); distil again.") from error


def same_but_for_name(a: Space, b: Space) -> bool:
    """Whether two spaces are one, whatever name or path their model was loaded by."""
    return bool(a.revision) and replace(a, model="").id == replace(b, model="").id


class AlignedEncoder:
    """A student that speaks in its teacher's space; made by `aligned`.

    Prompts are the teacher's, as in training: the student learned to reproduce the vectors of prompted texts.

    Attributes
    ----------
    encoder
        The student.
    space
        The teacher's.
    """

    def __init__(self, encoder: TextEncoder, space: Space) -> None:
        self.encoder, self.space = encoder, space

    def encode_query(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32) -> FloatArray:
        """Encode questions, float32 ``[n, d]``."""
        return self.encoder.encode_query(inputs, prompt=self._prompt("query", prompt), batch_size=batch_size)

    def encode_document(self, inputs: Sequence[str], *, prompt: str | None = None, batch_size: int = 32) -> FloatArray:
        """Encode documents, float32 ``[n, d]``."""
        return self.encoder.encode_document(inputs, prompt=self._prompt("document", prompt), batch_size=batch_size)

    def _prompt(self, role: str, given: str | None) -> str:
        return self.space.prompts.get(role, "") if given is None else given


def aligned(encoder: TextEncoder, space: Space) -> AlignedEncoder:
    """Let a student's vectors into a teacher's space, if its folder proves that they belong there.

    Parameters
    ----------
    encoder
        The student, as `isometry.encoders.load` returned it.
    space
        Of the vectors it shall be compared with, such as a collection's.

    Raises
    ------
    SpaceMismatch
        If the student is not aligned with any space, with another one, or its weights changed since.

    References
    ----------
    LEAF, arXiv:2509.12539: documents are indexed by the teacher, queries asked by the student.
    """
    found: Alignment | None = alignment_of(encoder.source)
    name = encoder.space.model
    if found is None:
        raise SpaceMismatch(
            f"{name} is not known to be aligned with {space.name}: equal width does not make equal spaces; "
            "embed both with one model, or distil a student from that model."
        )
    if not same_but_for_name(found.space, space):
        raise SpaceMismatch(
            f"{name} is aligned with {found.space.name} [{found.space.id}], not with {space.name} [{space.id}]; "
            "take the student of that very model, prompts and transforms included."
        )
    if found.student != encoder.space.revision:
        raise SpaceMismatch(f"{name} has changed since it was aligned with {space.name}; distil it again.")
    if encoder.space.dim != space.dim or encoder.space.normalized != space.normalized or encoder.space.chain:
        raise SpaceMismatch(f"{name} gives vectors of another form than {space.name}: {_form(encoder.space)}.")
    return AlignedEncoder(encoder, space)


def _form(space: Space) -> str:
    facts: dict[str, Any] = {"width": space.dim, "normalised": space.normalized, "transforms": list(space.chain)}
    return ", ".join(f"{key} {value}" for key, value in facts.items())
