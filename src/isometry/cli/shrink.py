"""``isometry shrink``: keep a collection's vectors in fewer bytes, and see what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isometry.cli.console import emit, progress_bar, remarks, say, table
from isometry.cli.options import JsonFlag, QuietFlag

if TYPE_CHECKING:
    from isometry.workbench.shrinking import Shrinking, Trial


def shrink(
    name: Annotated[str, typer.Argument(help="Name or path of the collection.")],
    bits: Annotated[int | None, typer.Option(help="Bits per dimension: 1, 2, 4 or 8.")] = None,
    pq: Annotated[int | None, typer.Option(help="Product quantisation in this many parts, one byte each.")] = None,
    dims: Annotated[int | None, typer.Option(help="Principal dimensions to keep, 8 bits each.")] = None,
    budget: Annotated[str | None, typer.Option(help="Most memory for the vectors, for example 200MB.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Search by the recommended code from now on.")] = False,
    off: Annotated[bool, typer.Option("--off", help="Search by the full vectors again.")] = False,
    sample: Annotated[int, typer.Option(help="Documents to try the codes on.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Try codes for a collection's vectors: bytes against recall, nDCG and speed; --apply uses one.

    The vectors stay in the collection: search finds candidates by codes and ranks them by the vectors.

    Example: isometry shrink notes --budget 20MB --apply
    """
    from isometry.errors import InputError
    from isometry.workbench import open_collection
    from isometry.workbench.shrinking import candidates, parse_size, try_codes

    if sample < 1000:
        raise InputError(f"--sample must be at least 1000 documents, got {sample}.")
    if off and apply:
        raise InputError("Give --apply or --off, not both.")
    limit = None if budget is None else parse_size(budget)
    with remarks(), progress_bar(quiet=quiet) as progress, open_collection(name, write=apply or off) as collection:
        if off:
            collection.set_code(None)
            say(f"{collection.name} is searched by its full vectors again.")
            return
        encoder = None
        if collection.meta.get("judgments"):
            from isometry.workbench.searching import Searcher

            encoder = Searcher(collection).encoder
        codes = candidates(collection.default_space.dim, bits=bits, parts=pq, dims=dims)
        found = try_codes(collection, codes, budget=limit, encoder=encoder, sample=sample, seed=seed, progress=progress)
        chosen = found.recommended or (found.trials[1] if len(found.trials) == 2 else None)
        if apply:
            if chosen is None:
                raise InputError(
                    "None of these codes keeps .99 of the neighbours; name one with --bits, --pq or --dims to apply it."
                )
            collection.set_code(chosen.code)
            collection.snapshot()
    if json_:
        emit(_record(found, chosen if apply else None))
    else:
        _show(found, chosen, applied=apply, name=name)


def _record(found: Shrinking, applied: Trial | None) -> dict[str, Any]:
    return {
        "documents": found.documents, "sample": found.sample, "queries": found.queries, "judged": found.judged,
        "trials": [trial.to_dict() for trial in found.trials],
        "recommended": None if found.recommended is None else found.recommended.name,
        "applied": None if applied is None else applied.name,
    }  # fmt: skip


def _show(found: Shrinking, chosen: Trial | None, *, applied: bool, name: str) -> None:
    judged = ["nDCG@10", "change (95 %)"] if found.judged else []
    rows = []
    for trial in found.trials:
        low, high = trial.rescored_ci95
        row = [
            f"{trial.name}{' *' if trial is found.recommended else ''}",
            f"{trial.bytes_per_vector:,.0f}",
            f"{trial.total_bytes / 1e6:,.1f} MB",
            f"{trial.recall:.3f}",
            f"{trial.rescored:.3f} ({low:.3f}-{high:.3f})",
        ]
        if found.judged:
            loss, ci = trial.ndcg_loss, trial.ndcg_loss_ci95
            row.append("" if trial.ndcg is None else f"{trial.ndcg:.3f}")
            row.append("" if loss is None or ci is None else f"{loss:+.4f} ({ci[0]:+.4f} to {ci[1]:+.4f})")
        rows.append([*row, f"{trial.qps:,.0f}"])
    headings = ["kept as", "bytes each", "all", "recall@10", "rescored (95 %)", *judged, "queries/s"]
    kind = "judged queries" if found.judged else "held-out documents as queries"
    title = f"{found.documents:,} documents; measured on {found.sample:,} of them with {found.queries} {kind}"
    table(headings, rows, title=title, right=(1, 2, 3, len(headings) - 1))
    say("rescored: the 40 best by codes are ranked by the full vectors, which stay on disk; so does search.")
    if applied and chosen is not None:
        say(f"{name} is now searched by {chosen.name}; `isometry shrink {name} --off` takes that back.")
    elif found.recommended is None:
        say("* None of these keeps .99 of the neighbours.")
    else:
        say(f"* recommended: the smallest that keeps .99 of the neighbours. `isometry shrink {name} --apply` uses it.")
