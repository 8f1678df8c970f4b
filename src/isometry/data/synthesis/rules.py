"""A writer by rules: deterministic and without a language model, whose place it takes in experiments and tests."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from isometry.data.sentences import split_sentences
from isometry.data.synthesis.generator import DIFFICULTIES, LENGTHS, QUESTION_TYPES, Configuration, Mode, Request
from isometry.data.synthesis.thesaurus import Thesaurus
from isometry.errors import InputError, UnknownName

Rng = np.random.Generator
_FUNCTION_WORDS_TEXT = """a about after all also although an and any are as at be because been before being between both
    but by can could did do does during each for from had has have he her his how i if in into is it its may more most
    no not of on once one or other our over she should since so some such than that the their them then there these they
    this those through to two under unless until up was we were what when where which while who why will with would you
    your"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())
_TEMPLATES: Final = {
    1: ("What is {0}?", "What is known about {0}?", "Tell me about {0}."),
    2: ("How is {0} related to {1}?", "What is the role of {0} in {1}?", "Does {0} affect {1}?"),
    3: ("What is known about {0}, {1} and {2}?", "How do {0} and {1} bear on {2}?", "Is {2} explained by {0} and {1}?"),
}
_WORDS: Final = {"short": (1, 2, 8), "medium": (2, 4, 16), "long": (3, 6, 40)}  # terms, keywords, words of a sentence
_JOINTS = "because although when if while after before unless since once"
_LEADING = re.compile(rf"^({_JOINTS.replace(' ', '|')}) ([^,]+), (.+?)([.!?]?)$", re.IGNORECASE)
_TRAILING = re.compile(rf"^([^,]+?),? ({_JOINTS.replace(' ', '|')}) ([^,]+?)([.!?]?)$")
_LIST = re.compile(r"\b(\w+), (\w+),? (and|or) (\w+)\b")
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w])")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][\w-]*(?: [A-Z][\w-]*)*")
_VERB = re.compile(r"\b(is|are|was|were|can|could|will|would|has|have|had|does|do|did|should|must)\b( not\b)?")


class RuleGenerator:
    """Generator by rules: templates and inverse clozes, synonyms and clause order, swapped names and numbers.

    Parameters
    ----------
    thesaurus
        Synonyms and antonyms, e.g. ``Thesaurus.wordnet(folder)``; without one, only clauses are moved.
    entities
        Names that may take the place of a passage's own in a hard negative.

    Notes
    -----
    The same request always gives the same text. Question templates, clause order and negation are English; keywords and
    sentences are in the passage's language. A persona steers which sentence is asked about, not the style.

    Examples
    --------
    >>> writer = RuleGenerator()
    >>> writer.generate(Request("paraphrase", "When it rains, the river rises."))
    'The river rises when it rains.'
    >>> writer.generate(Request("hard_negative", "The bridge is open.", query="Is the bridge open?"))
    'The bridge is not open.'
    """

    modes: tuple[Mode, ...] = ("query", "paraphrase", "hard_negative")

    def __init__(self, thesaurus: Thesaurus | None = None, *, entities: Sequence[str] = ()) -> None:
        self.thesaurus, self.entities = thesaurus or Thesaurus(), tuple(entities)
        self.name = f"rules-1 ({len(self.thesaurus.synonyms)} synonyms, {len(self.thesaurus.antonyms)} antonyms)"

    def configure(self, passage: str, personas: Sequence[str], seed: int) -> Configuration:
        """Draw who asks, and how."""
        rng = _rng(passage, seed)
        kinds = [str(rng.choice(values)) for values in (QUESTION_TYPES, DIFFICULTIES, LENGTHS)]
        return Configuration(str(rng.choice(list(personas))) if personas else "", *kinds)

    def generate(self, request: Request) -> str:
        """Write one text; empty where no rule applies.

        Raises
        ------
        InputError
            If the mode needs knowledge that rules do not have.
        """
        rng = _rng(request.text, request.seed)
        if request.mode == "query":
            return self._query(request.text, request.configuration, rng)
        if request.mode == "paraphrase":
            return self._paraphrase(request.text, rng)
        if request.mode == "hard_negative":
            return self._hard_negative(request.text, request.query, rng)
        raise InputError(f"Rules cannot write {request.mode!r}, only {self.modes}; use a PromptGenerator.")

    def _query(self, text: str, configuration: Configuration, rng: Rng) -> str:
        if configuration.length not in _WORDS:
            raise UnknownName("length", configuration.length, _WORDS)
        terms_in_question, keywords, words = _WORDS[configuration.length]
        counts = Counter(_terms(text))
        sentences = [text[a:b] for a, b in split_sentences(text)]
        sentences = [sentence for sentence in sentences if _terms(sentence)]
        if not sentences:
            return ""
        near = [_shared(sentence, configuration.persona) for sentence in sentences]
        sentence = sentences[int(rng.choice(np.flatnonzero(np.asarray(near) == max(near))))]
        ranked = sorted(dict.fromkeys(_terms(sentence)), key=lambda term: (-counts[term], -len(term), term))
        if configuration.question_type == "sentence":
            found = " ".join(sentence.split()[:words])
        elif configuration.question_type == "keywords":
            kept = set(ranked[:keywords])
            found = " ".join(term for term in dict.fromkeys(_terms(sentence)) if term in kept)
        else:
            kept_terms = ranked[:terms_in_question]
            templates = _TEMPLATES[len(kept_terms)]
            found = templates[int(rng.integers(len(templates)))].format(*kept_terms)
        return self._synonyms(found, rng) if configuration.difficulty == "hard" else found

    def _paraphrase(self, text: str, rng: Rng) -> str:
        text = " ".join(text.split())
        found = self._synonyms(" ".join(_reorder(text[a:b]) for a, b in split_sentences(text)), rng)
        return found if "".join(found.split()) != "".join(text.split()) else ""

    def _hard_negative(self, text: str, query: str, rng: Rng) -> str:
        pool = [*dict.fromkeys([*_NAME.findall(text), *self.entities])]

        def other(found: re.Match[str]) -> str:
            rest = [name for name in pool if name != found[0]]
            return str(rng.choice(rest)) if rest else found[0]

        swapped = _NUMBER.sub(lambda found: _another_number(found[0], rng), _NAME.sub(other, text))
        if swapped != text:
            return swapped
        spans = split_sentences(text)
        for start, end in sorted(spans, key=lambda span: -_shared(text[span[0] : span[1]], query)):
            sentence = text[start:end]
            for change in (self._opposite, _negate):
                if (changed := change(sentence)) != sentence:
                    return text[:start] + changed + text[end:]
        return ""

    def _opposite(self, sentence: str) -> str:
        """Replace the first word that has an antonym by it."""
        for found in re.finditer(r"\w+", sentence):
            if others := self.thesaurus.antonyms.get(found[0]):
                return sentence[: found.start()] + others[0].replace("_", " ") + sentence[found.end() :]
        return sentence

    def _synonyms(self, text: str, rng: Rng) -> str:
        """Replace words that have synonyms, each with an even chance, the first one always."""
        replaced = 0

        def other(found: re.Match[str]) -> str:
            nonlocal replaced
            choices = self.thesaurus.synonyms.get(found[0], ())
            if not choices or (replaced and rng.random() < 0.5):
                return found[0]
            replaced += 1
            return str(choices[int(rng.integers(len(choices)))]).replace("_", " ")

        return re.sub(r"\w+", other, text)


def inverse_cloze(text: str, *, seed: int = 0, keep: float = 0.1) -> tuple[str, str] | None:
    """Return a sentence of a text and the text without it (inverse cloze task, Lee et al. 2019, arXiv:1906.00300).

    Parameters
    ----------
    keep
        Chance that the sentence also stays in the text, so that matching words is learned too.

    Returns
    -------
    tuple or None
        None where there are fewer than two sentences.

    Examples
    --------
    >>> inverse_cloze("One is here. Two is there.", keep=0.0)
    ('One is here.', 'Two is there.')
    """
    if not 0 <= keep <= 1:
        raise InputError(f"keep must lie in 0..1, got {keep}.")
    spans = split_sentences(text)
    if len(spans) < 2:
        return None
    rng = _rng(text, seed)
    start, end = spans[int(rng.integers(len(spans)))]
    rest = text if rng.random() < keep else f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()
    return text[start:end], rest


def _rng(text: str, seed: int) -> Rng:
    return np.random.default_rng((seed, zlib.crc32(text.encode())))


def _terms(text: str) -> list[str]:
    return [w for w in re.findall(r"[^\W\d_][\w-]+", text) if len(w) > 2 and w.lower() not in _FUNCTION_WORDS]


def _shared(text: str, other: str) -> int:
    return len({w.lower() for w in _terms(text)} & {w.lower() for w in _terms(other)})


def _reorder(sentence: str) -> str:
    """Move a subordinate clause to the other end, or turn a list of three round."""
    if found := _LEADING.match(sentence):
        joint, clause, main, stop = found.groups()
        return f"{main[0].upper()}{main[1:]} {joint.lower()} {clause}{stop}"
    if found := _TRAILING.match(sentence):
        main, joint, clause, stop = found.groups()
        first = main.split()[0]
        lowered = main[0].lower() + main[1:] if first.lower() in _FUNCTION_WORDS and first != "I" else main
        return f"{joint.capitalize()} {clause}, {lowered}{stop}"
    return _LIST.sub(r"\4, \1 \3 \2", sentence)


def _negate(sentence: str) -> str:
    """Add "not" after the first auxiliary verb, or take it away."""
    return _VERB.sub(lambda found: found[1] if found[2] else f"{found[1]} not", sentence, count=1)


def _another_number(number: str, rng: Rng) -> str:
    """Another number of as many digits."""
    low = 10 ** (len(number) - 1) if len(number) > 1 else 0
    span = 10 ** len(number) - low
    return str(low + (int(number) - low + int(rng.integers(1, min(span, 10)))) % span)
