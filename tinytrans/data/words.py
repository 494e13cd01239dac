"""Words: texts -> sentences of word ids, the words behind the ids, and how often each occurs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_END = re.compile(r"[.!?…。！？]+")


def sentences(text: str) -> list[list[str]]:
    """The sentences of a text, each as its words in lower case; numbers and signs are left out.

    >>> sentences("The owl didn't sleep. Why?")
    [['the', 'owl', "didn't", 'sleep'], ['why']]
    """
    found = (_WORD.findall(part.lower()) for part in _END.split(text))
    return [words for words in found if words]


class Words:
    """Texts as `sentences` of ids; `words` by id, the most frequent first; `counts` (V,); `index` word -> id.

    Words that occur less than `least` times are left out, as if nobody had written them.

    >>> known = Words(["A fox. A fox and a cat."], least=2)
    >>> known.words, known.sentences
    (['a', 'fox'], [[0, 1], [0, 1, 0]])
    """

    def __init__(self, texts: Iterable[str], *, least: int = 5) -> None:
        told = [words for text in texts for words in sentences(text)]
        counts = Counter(word for words in told for word in words)
        self.words = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
        self.index = {word: i for i, word in enumerate(self.words)}
        self.counts: Tensor = torch.tensor([counts[word] for word in self.words])
        self.sentences = [[self.index[word] for word in words if word in self.index] for words in told]

    def __len__(self) -> int:
        return len(self.words)
