"""Pointwise yes/no scorer over a causal language model: does this document answer this query?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from isometry.errors import DataFormatError, EmptyInput, InputError
from isometry.files import make_folder, write_whole
from isometry.modules.chat import chat_frame
from isometry.modules.quiet import quiet
from isometry.types import FloatArray

Pair = tuple[str, str]
CONFIG: Final = "yes_no.json"
TASK = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class YesNoPrompt:
    """What the model reads.

    Parameters
    ----------
    system
        What it is told to do.
    content
        With the fields ``{task}`` and ``{query}``; the document follows.
    answer
        How its answer begins, after what the chat template puts there; Qwen3 needs an empty block of thought.
    """

    system: str = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".'
    )
    content: str = "<Instruct>: {task}\n<Query>: {query}\n<Document>: "
    answer: str = ""


class YesNoModel(nn.Module):
    """Pointwise yes/no relevance (Qwen3-Reranker, arXiv:2506.05176; monoT5's idea): logits of exactly two tokens.

    Parameters
    ----------
    lm
        A causal language model of transformers.
    tokenizer
        Its tokenizer; its chat template is used where it has one.
    task
        The instruction that queries come with.
    prompt
        See `YesNoPrompt`.
    answers
        The two answers; each must be one token.
    max_tokens
        Of prompt, query and document together; a document that is too long loses its end, the prompt nothing.
    batch_size
        Pairs read at once by `predict`.

    Raises
    ------
    InputError
        If an answer is not a single token, or the prompt alone is too long.
    """

    def __init__(
        self,
        lm: Any,
        tokenizer: Any,
        *,
        task: str = TASK,
        prompt: YesNoPrompt | None = None,
        answers: tuple[str, str] = ("yes", "no"),
        max_tokens: int = 1024,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        self.lm, self.tokenizer, self.task = lm, tokenizer, task
        self.prompt = prompt or YesNoPrompt()
        self.answers, self.max_tokens, self.batch_size = answers, max_tokens, batch_size
        self.answer_ids = answer_ids(tokenizer, answers)
        self._frame = self._render()

    def logits(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the logits of yes and no after each pair's prompt, ``[n, 2]``, with gradient."""
        return self.next_token_logits(pairs)[:, list(self.answer_ids)]

    def next_token_logits(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the logits of every token after each pair's prompt, ``[n, vocabulary]``, with gradient."""
        rows = [self.tokens(query, document) for query, document in pairs]
        if not rows:
            raise EmptyInput("There is no pair to score.")
        device = next(self.lm.parameters()).device
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row, device=device) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
        # on the right, padding changes nothing in a causal model; `logits_to_keep` knows no lengths, so the body is run
        states = self.lm.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = states[torch.arange(len(rows), device=device), lengths - 1]
        logits: Tensor = self.lm.get_output_embeddings()(last)
        return logits.float()

    @torch.no_grad()
    def predict(self, pairs: Iterable[Pair]) -> FloatArray:
        """Return the log odds of yes against no, float32 ``[n]``; what `isometry.ranking.Rerank` asks for.

        Their sigmoid is `probability`. Pairs are read in the order of their length, so that little is padded.
        """
        rows = list(pairs)
        out = torch.empty(len(rows))
        was_training = self.training
        self.eval()
        try:
            order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
            for start in range(0, len(rows), self.batch_size):
                chosen = order[start : start + self.batch_size]
                yes, no = self.logits([rows[i] for i in chosen]).unbind(1)
                out[chosen] = (yes - no).cpu()
        finally:
            self.train(was_training)
        odds: FloatArray = out.numpy()
        return odds

    def probability(self, pairs: Iterable[Pair]) -> FloatArray:
        """Return ``e^yes / (e^yes + e^no)``, float32 ``[n]`` in 0..1: the paper's score, the sigmoid of `predict`."""
        score: FloatArray = torch.sigmoid(torch.from_numpy(self.predict(pairs))).numpy()
        return score

    def tokens(self, query: str, document: str) -> list[int]:
        """Return the token ids of a pair's whole prompt."""
        before, after = self._frame
        head = before + self._encode(self.prompt.content.format(task=self.task, query=query))
        room = self.max_tokens - len(head) - len(after)
        if room < 1:
            raise InputError(
                f"Prompt and query take {len(head) + len(after)} of {self.max_tokens} tokens and leave no room for a "
                "document; raise max_tokens or shorten the query."
            )
        return head + self._encode(document)[:room] + after

    def save(self, path: str | Path) -> None:
        """Write language model, tokenizer and what is asked to a folder."""
        folder = make_folder(path)
        with quiet():
            self.lm.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        about = {
            "task": self.task,
            "prompt": asdict(self.prompt),
            "answers": self.answers,
            "max_tokens": self.max_tokens,
        }
        write_whole(folder / CONFIG, json.dumps(about, sort_keys=True).encode())

    @classmethod
    def load(cls, path: str | Path, **changes: Any) -> Self:
        """Read what `save` wrote; ``changes`` replace what it says, such as ``task``.

        Raises
        ------
        DataFormatError
            If a file is missing or broken.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(path)
        try:
            about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            about |= {"prompt": YesNoPrompt(**about["prompt"]), "answers": tuple(about["answers"])}
            with quiet():
                lm = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataFormatError(folder, None, f"the yes/no reranker cannot be read ({error}).") from error
        return cls(lm.eval(), tokenizer, **{**about, **changes})

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _render(self) -> tuple[list[int], list[int]]:
        """Token ids before and after what differs from pair to pair."""
        before, after = chat_frame(self.tokenizer, self.prompt.system)
        frame = self._encode(before), self._encode(after + self.prompt.answer)
        if sum(map(len, frame)) >= self.max_tokens:
            raise InputError(f"The prompt alone takes {sum(map(len, frame))} of {self.max_tokens} tokens.")
        return frame


def answer_ids(tokenizer: Any, answers: Sequence[str]) -> tuple[int, ...]:
    """Return the token id of each answer.

    Raises
    ------
    InputError
        If an answer is split into several tokens, is unknown to the tokenizer, or two answers are one token.
    """
    found = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    for answer, ids in zip(answers, found, strict=True):
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(ids)
            raise InputError(
                f"The answer {answer!r} must be one token of the tokenizer, it is {pieces}; choose another."
            )
    if len({ids[0] for ids in found}) < len(found):
        raise InputError(f"The answers {list(answers)} are the same token; choose others.")
    return tuple(ids[0] for ids in found)
