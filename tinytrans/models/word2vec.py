"""word2vec: sentences of word ids -> a vector (D,) a word, near those of words found in the same company.

CBOW guesses the centre of a window from the mean of its context, skip-gram each context word from the centre. Two
tables learn: `inputs` for the words that are given, `outputs` for those that are guessed; `inputs` is what one keeps.
Sources: Mikolov et al. 2013, arXiv 1301.3781 (the two tasks) and 1310.4546 (negative sampling, subsampling).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import Word2VecConfig
from tinytrans.models.pretrained import Pretrained

NOBODY = -1  # stands in a context where a window reaches past its sentence


def window_pairs(sentence: Sequence[int], width: int) -> list[tuple[int, int]]:
    """A sentence's ids -> (centre, context) for each word and each other at most width places away.

    Places count, not words: the centre's place is left out, its word may stand elsewhere in the
    window.

    >>> window_pairs([7, 8, 9], width=1)
    [(7, 8), (8, 7), (8, 9), (9, 8)]
    """
    pairs = []
    for t, centre in enumerate(sentence):
        first, last = max(0, t - width), min(len(sentence) - 1, t + width)
        pairs += [(centre, sentence[s]) for s in range(first, last + 1) if s != t]
    return pairs


class Windows(NamedTuple):
    """Centres (N,) and the words around each, contexts (N, 2 width), NOBODY where the sentence has ended."""

    centres: Tensor
    contexts: Tensor

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Skip-gram's examples, as `window_pairs` lists them: given (M, 1) the centre, guessed (M,) the other word."""
        present = self.contexts != NOBODY
        return self.centres[:, None].expand_as(self.contexts)[present][:, None], self.contexts[present]

    def bags(self) -> tuple[Tensor, Tensor]:
        """CBOW's examples: given (M, 2 width) the words around, guessed (M,) the centre; none without words."""
        some = (self.contexts != NOBODY).any(dim=-1)
        return self.contexts[some], self.centres[some]


def windows(sentences: Iterable[Sequence[int]], width: int) -> Windows:
    """All windows of all sentences at once; none reaches over the end of its sentence into the next.

    >>> windows([[7, 8], [9, 5]], width=1).contexts.tolist()
    [[-1, 8], [7, -1], [-1, 5], [9, -1]]
    """
    gap = [NOBODY] * width  # between two sentences, so that a window finds nobody there
    line = np.fromiter(chain(gap, chain.from_iterable(chain(sentence, gap) for sentence in sentences)), dtype=np.int64)
    ids = torch.from_numpy(line)
    if len(ids) <= 2 * width:
        return Windows(ids[:0], ids[:0].view(0, 2 * width))
    around = ids.unfold(0, 2 * width + 1, 1)  # (N, 2 width + 1)
    around = around[around[:, width] != NOBODY]
    return Windows(around[:, width], torch.cat((around[:, :width], around[:, width + 1 :]), dim=1))


def keep_chances(counts: Tensor, threshold: float = 1e-3) -> Tensor:
    """How likely an occurrence of a word is kept, frequent words less: counts (V,) -> (V,).

    min(1, sqrt(threshold / f)) with f the word's share of all words; 1 for a word that never occurs.
    Source: Mikolov et al. 2013, equation 5 (their P is the chance to be dropped), arXiv 1310.4546.

    >>> keep_chances(torch.tensor([4, 96]), threshold=0.24)
    tensor([1.0000, 0.5000])
    """
    shares = counts / counts.sum()
    return (threshold / shares).sqrt().clamp(max=1)


def subsample(sentence: Tensor, chances: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """A sentence (T,) without some of its frequent words: each is kept with its word's chance (V,).

    Windows are taken afterwards, and so reach further.
    Source: Mikolov et al. 2013, section 2.3, arXiv 1310.4546.

    >>> subsample(torch.tensor([0, 1, 0, 2]), torch.tensor([0.0, 1.0, 1.0]))
    tensor([1, 2])
    """
    return sentence[torch.rand(sentence.shape, generator=generator, device=sentence.device) < chances[sentence]]


def noise(counts: Tensor, power: float = 0.75) -> Tensor:
    """How likely each word is as a wrong answer: counts (V,) -> (V,), count^power shared out.

    The power lifts rare words above their share.
    Source: Mikolov et al. 2013, section 2.2, arXiv 1310.4546.

    >>> noise(torch.tensor([1, 16]))
    tensor([0.1111, 0.8889])
    """
    weights = counts.float() ** power
    return weights / weights.sum()


def draw_negatives(
    chances: Tensor, right: Tensor, n: int, *, generator: torch.Generator | None = None, tries: int = 1000
) -> Tensor:
    """n wrong answers to each example: right (B,) or (B, R), ids that must not be drawn -> (B, n), by chances (V,).

    A right answer that was drawn is drawn again, so that no word is pulled and pushed at once; NOBODY is no word.
    Raises ValueError where some example has next to no wrong answer.
    """
    right = right.view(len(right), -1)
    negatives = torch.multinomial(chances, len(right) * n, replacement=True, generator=generator).view(-1, n)
    for _ in range(tries):
        again = (negatives[:, :, None] == right[:, None, :]).any(dim=-1)
        if not (count := int(again.sum())):
            return negatives
        negatives[again] = torch.multinomial(chances, count, replacement=True, generator=generator)
    raise ValueError(f"{count} of {negatives.numel()} negatives are still right answers after {tries} draws")


def mean_vector(vectors: Tensor, present: Tensor) -> Tensor:
    """The mean of the vectors that are present: (B, C, D), bool (B, C) -> (B, D); of none, zeros.

    It knows which words there are and not in which order: a bag of words.

    >>> mean_vector(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[3.]])
    """
    present = present.unsqueeze(-1)  # (B, C, 1)
    total = vectors.masked_fill(~present, 0).sum(dim=1)
    return total / present.sum(dim=1).clamp(min=1)


def cbow_loss(inputs: Tensor, outputs: Tensor, contexts: Tensor, centres: Tensor) -> Tensor:
    """How surprising the centres are, given the means of their contexts: mean of -log p, shape ().

    p = softmax over all V words of outputs @ mean(inputs[context]); inputs, outputs (V, D),
    contexts (B, C) with NOBODY where there is no word, centres (B,). It costs V products an
    example, which negative sampling spares.
    Source: Mikolov et al. 2013, section 3.1, arXiv 1301.3781.

    >>> table = torch.zeros(8, 3)
    >>> cbow_loss(table, table, torch.tensor([[1, 2]]), torch.tensor([5]))  # ln 8
    tensor(2.0794)
    """
    present = contexts != NOBODY
    hidden = mean_vector(inputs[contexts.clamp(min=0)], present)  # (B, D)
    return F.cross_entropy(hidden @ outputs.T, centres)


def negative_sampling_loss(hidden: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """The right word's vector is pulled to the given one, wrong words' are pushed away: shape ().

    The mean over B of -log sigmoid(u . h) - sum_n log sigmoid(-u_n . h): hidden and positive
    (B, D), negatives (B, N, D). `logsigmoid` is finite where log(sigmoid(-200)) is not.
    Source: Mikolov et al. 2013, equation 4, arXiv 1310.4546.

    >>> negative_sampling_loss(torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 4, 3))  # 5 ln 2
    tensor(3.4657)
    """
    right = (hidden * positive).sum(dim=-1)  # (B,)
    wrong = (negatives @ hidden.unsqueeze(-1)).squeeze(-1)  # (B, N)
    return -(F.logsigmoid(right) + F.logsigmoid(-wrong).sum(dim=-1)).mean()


class Neighbours(NamedTuple):
    """The nearest words, nearest first: ids (k,) and cosines (k,)."""

    ids: Tensor
    cosines: Tensor


def nearest(vectors: Tensor, query: Tensor, k: int, *, exclude: Sequence[int] = ()) -> Neighbours:
    """The k words whose vectors point most nearly where the query does: vectors (V, D), query (D,).

    cos = u . v / (|u| |v|); a vector of zeros points nowhere, its cosine is 0.

    >>> nearest(torch.tensor([[9.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0.0, 5.0]), 2).ids
    tensor([1, 2])
    """
    cosines = F.normalize(vectors, dim=-1) @ F.normalize(query, dim=-1)
    cosines[list(exclude)] = -math.inf
    best = cosines.topk(min(k, len(vectors) - len(set(exclude))))
    return Neighbours(best.indices, best.values)


def neighbours(vectors: Tensor, word: int, k: int = 5) -> Neighbours:
    """The k other words nearest to a word, by cosine; itself, the nearest of all, is left out.

    >>> neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]]), word=0, k=1).ids
    tensor([2])
    """
    return nearest(vectors, vectors[word], k, exclude=[word])


def analogy(vectors: Tensor, a: int, b: int, c: int, k: int = 1) -> Neighbours:
    """a is to b as c is to ...: nearest to b - a + c, each of length 1; the three are left out.

    Source: Mikolov, Yih and Zweig 2013, section 4, NAACL N13-1090.

    >>> analogy(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]]), a=0, b=1, c=2).ids
    tensor([3])
    """
    unit = F.normalize(vectors, dim=-1)
    return nearest(vectors, unit[b] - unit[a] + unit[c], k, exclude=[a, b, c])


class Word2Vec(Pretrained):
    """The two tables: what is given (B, C), what is guessed (B, N) -> how well each guess fits, scores (B, N).

    With `Windows.pairs()` it learns by skip-gram, with `Windows.bags()` by CBOW. At birth the inputs are small and the
    outputs 0, so that every score is 0 and the loss (1 + negatives) ln 2.

    >>> Word2Vec(Word2VecConfig(vocab_size=9, d_model=4))(torch.tensor([[3]]), torch.tensor([[1, 2]]))
    tensor([[0., 0.]], grad_fn=<SqueezeBackward1>)
    """

    Config = Word2VecConfig

    def __init__(self, config: Word2VecConfig) -> None:
        super().__init__(config)
        V, D = config.vocab_size, config.d_model
        self.inputs = nn.Parameter(torch.empty(V, D).uniform_(-0.5 / D, 0.5 / D))  # as in the authors' program
        self.outputs = nn.Parameter(torch.zeros(V, D))

    def hidden(self, given: Tensor) -> Tensor:
        """The mean of the given words' vectors, NOBODY left out: (B, C) -> (B, D)."""
        present = given != NOBODY
        ends = present.sum(dim=1).cumsum(dim=0)
        starts = F.pad(ends, (1, 0))[:-1]
        return F.embedding_bag(given[present], self.inputs, starts, mode="mean")

    def forward(self, given: Tensor, guessed: Tensor) -> Tensor:
        """Scores (B, N): the product of the given words' mean with each guessed word's output vector."""
        return (self.outputs[guessed] @ self.hidden(given).unsqueeze(-1)).squeeze(-1)

    def loss(self, given: Tensor, right: Tensor, negatives: Tensor) -> Tensor:
        """`negative_sampling_loss` of examples given (B, C), right (B,) and negatives (B, N), shape ()."""
        return negative_sampling_loss(self.hidden(given), self.outputs[right], self.outputs[negatives])

    @property
    def vectors(self) -> Tensor:
        """The word vectors (V, D), without gradients."""
        return self.inputs.detach()
