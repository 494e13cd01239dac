"""Byte-level BPE: texts -> merges, text -> ids, ids -> text.

The 256 bytes are the first tokens; the pair of neighbours seen most often becomes the next one, again and again.
Functions first, each a few lines; then `BPETokenizer`, which remembers every word it has met, and every chunk of words
between two spaces.
Source: Sennrich, Haddow & Birch 2016, arXiv 1508.07909; on bytes: Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Self

import tokenizers

from tinytrans.tokenizers.base import Tokenizer, add_special_tokens, check_special, one_row, one_text, several
from tinytrans.tokenizers.pair_index import Pair, PairIndex
from tinytrans.tokenizers.split import BYTE_OF_ID, byte_ids, chunks, join, split, visible

OTHERS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")  # ways of other BPEs
Merges = dict[Pair, int]  # pair -> the id that replaces it, in the order learned: 256, 257, ...


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in the texts: a merge is decided by counts, not by places."""
    words: Counter[str] = Counter()
    for chunk, count in Counter(chain.from_iterable(map(chunks, texts))).items():
        for word in split(chunk):
            words[word] += count
    return words


def pair_counts(words: Mapping[tuple[int, ...], int]) -> Counter[Pair]:
    """How often each pair of neighbouring ids stands in words that occur so many times.

    >>> pair_counts({(1, 1, 1): 1, (1, 2): 5})
    Counter({(1, 2): 5, (1, 1): 2})
    """
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """The ids with every occurrence of the pair replaced by a new id, from left to right, never one id twice.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    left, right = pair
    merged: list[int] = []
    for i in ids:
        if i == right and merged and merged[-1] == left:
            merged[-1] = new_id
        else:
            merged.append(i)
    return merged


def most_frequent(counts: Mapping[Pair, int]) -> Pair:
    """The pair with the highest count; among equals the smallest ids, as in the Rust trainer."""
    return min(counts, key=lambda pair: (-counts[pair], pair))


def train_bpe_by_recounting(texts: Iterable[str], vocab_size: int) -> Merges:
    """The merges that `train_bpe` learns, by the definition: count all, merge everywhere, count again."""
    words = {tuple(byte_ids(word)): count for word, count in count_words(texts).items()}
    merges: Merges = {}
    for new_id in range(256, vocab_size):
        counts = pair_counts(words)
        if not counts:
            break
        pair = most_frequent(counts)
        merges[pair] = new_id
        words = {tuple(merge(word, pair, new_id)): count for word, count in words.items()}
    return merges


def train_bpe(texts: Iterable[str], vocab_size: int) -> Merges:
    """Learn merges until there are vocab_size ids, or no pair is left: pair -> new id, in order.

    The merges are those of the Rust trainer, one by one; after each only the words that held the pair are recounted.
    Raises ValueError when vocab_size leaves no room for the 256 bytes.

    >>> train_bpe(["aaab aaab"], 258) == {(64, 64): 256, (64, 65): 257}
    True
    """
    if vocab_size < 256:
        raise ValueError(f"vocab_size {vocab_size} is less than the 256 bytes")
    words = count_words(texts)
    index = PairIndex([byte_ids(word) for word in words], list(words.values()))
    merges: Merges = {}
    for new_id in range(256, vocab_size):
        pair = index.pop_most_frequent()
        if pair is None:
            break
        merges[pair] = new_id
        index.merge(pair, new_id)
    return merges


def first_learned(ids: Sequence[int], merges: Mapping[Pair, int]) -> Pair | None:
    """The pair of neighbours that was learned first, None when none of them was learned.

    >>> first_learned([1, 2, 3], {(2, 3): 256, (1, 2): 257})
    (2, 3)
    """
    return min(filter(merges.__contains__, pairwise(ids)), key=merges.__getitem__, default=None)


def encode_word(word: str, merges: Mapping[Pair, int]) -> list[int]:
    """The ids of one word: the pair that was learned first is merged first, wherever it stands."""
    ids = byte_ids(word)
    while pair := first_learned(ids, merges):
        ids = merge(ids, pair, merges[pair])
    return ids


def encode(text: str, merges: Mapping[Pair, int]) -> list[int]:
    """The ids of a text, word by word.

    >>> encode("ab abc", {(64, 65): 256, (220, 256): 257})
    [256, 257, 66]
    """
    return [i for word in split(text) for i in encode_word(word, merges)]


def token_bytes(merges: Mapping[Pair, int]) -> list[bytes]:
    """The bytes of every token, by id: a merged token is its two parts, one after the other.

    Raises ValueError when the merges are not numbered 256, 257, ... or use an id that is not yet there.

    >>> token_bytes({(64, 65): 256})[256]
    b'ab'
    """
    tokens = [bytes([byte]) for byte in BYTE_OF_ID]
    for (left, right), new_id in merges.items():
        if new_id != len(tokens) or max(left, right) >= new_id:
            raise ValueError(f"merge of {left} and {right} gives {new_id}, but {len(tokens)} is the next id")
        tokens.append(tokens[left] + tokens[right])
    return tokens


def decode(ids: Iterable[int], merges: Mapping[Pair, int]) -> str:
    """The text of ids; ids that are no UTF-8 give U+FFFD.

    >>> decode([256, 257, 66], {(64, 65): 256, (220, 256): 257})
    'ab abc'
    """
    tokens = token_bytes(merges)
    return join(tokens[i] for i in ids)


class ChunkCache(dict[str, tuple[int, ...]]):
    """Chunk of a text -> its ids, worked out word by word when it is met for the first time.

    It stops growing at LIMIT chunks, none longer than LONG characters, and words beyond that go to Rust: `encode_word`
    takes quadratic time, and a megabyte without a space must not hang anybody.
    """

    LIMIT = 2**18
    LONG = 256

    def __init__(self, merges: Merges, fast: tokenizers.Tokenizer) -> None:
        super().__init__()
        self.merges, self.fast = merges, fast

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        words = split(chunk)
        if len(words) > 1:
            ids = tuple(chain.from_iterable(map(self.__getitem__, words)))
        elif len(chunk) > self.LONG:
            return tuple(token.id for token in self.fast.model.tokenize(visible(chunk.encode())))
        else:
            ids = tuple(encode_word(chunk, self.merges))
        if len(self) < self.LIMIT and len(chunk) <= self.LONG:
            self[chunk] = ids
        return ids


class BPETokenizer(Tokenizer):
    """A byte-level BPE tokenizer: any text -> ids -> the same text.

    Ids: 0 to 255 the bytes, then one per merge, then the special tokens, as in GPT-2. Raises ValueError for a special
    token that a file could not tell from other bytes, as "¶", which stands there for the byte 0xB6.
    """

    def __init__(self, merges: Merges, special_tokens: Sequence[str] = ()) -> None:
        check_special(special_tokens)
        self.merges = dict(merges)
        self.tokens = token_bytes(merges)
        written = {visible(token): token for token in self.tokens}
        for name in special_tokens:
            if name in written and written[name] != name.encode():
                raise ValueError(f"special token {name!r} is how a file writes the bytes {written[name]!r}: rename it")
        super().__init__(build_fast(self.merges, self.tokens, special_tokens))
        self._special = self.special_tokens
        self._parts = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) or r"(?!)")
        self._cache = ChunkCache(self.merges, self.fast)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()) -> Self:
        """Learn from texts; the vocab_size counts bytes, merges and special tokens.

        Raises ValueError where it leaves no room for them, and for special tokens that cannot be told from others.
        """
        check_special(special_tokens)
        if vocab_size < 256 + len(special_tokens):
            n = len(special_tokens)
            raise ValueError(f"vocab_size {vocab_size} is less than the 256 bytes and {n} special tokens")
        return cls(train_bpe(several(texts), vocab_size - len(special_tokens)), special_tokens)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; with `special=False` the name of a special token in it is plain text."""
        one_text(text)
        if not special or not self._special or not self._parts.search(text):
            return self._encode_plain(text)
        ids: list[int] = []
        start = 0
        for found in self._parts.finditer(text):
            ids += self._encode_plain(text[start : found.start()])
            ids.append(self._special[found.group()])
            start = found.end()
        return ids + self._encode_plain(text[start:])

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """The ids of each text; on one core several times faster than `fast.encode_batch`, whose ids are the same."""
        return [self.encode(text, special=special) for text in several(texts)]

    def _encode_plain(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._cache.__getitem__, chunks(text))))

    def decode(self, ids: Iterable[int], *, special: bool = True) -> str:
        """The text of ids; with `special=False` the special tokens are left out. Raises as `Tokenizer.decode` does."""
        n, hidden = len(self.tokens), () if special else self._special.values()
        read = (self.tokens[i] if 0 <= i < n else self.id_to_token(i).encode() for i in one_row(ids) if i not in hidden)
        return join(read)

    @classmethod
    def from_fast(cls, fast: tokenizers.Tokenizer) -> Self:
        """The tokenizer with this twin; raises ValueError unless it is a byte-level BPE with GPT-2's ids and split."""
        spec = json.loads(fast.to_str())
        model, split_by = spec["model"], spec["pre_tokenizer"] or {}
        plain = split_by.get("type") == "ByteLevel" and split_by["use_regex"] and not split_by["add_prefix_space"]
        if model.get("type") != "BPE" or not plain or spec["normalizer"] or any(model[name] for name in OTHERS):
            raise ValueError(f"not a byte-level BPE split as GPT-2 does: {model.get('type')}, {split_by or 'no split'}")
        if spec["truncation"] or spec["padding"] or not all(map(is_plain, spec["added_tokens"])):
            raise ValueError("it cuts, pads, or has added tokens that are not special or take the space beside them")
        vocab = model["vocab"]
        merges = {(vocab[a], vocab[b]): vocab[a + b] for a, b in model["merges"]}
        tokenizer = cls(merges, [token["content"] for token in spec["added_tokens"]])
        if tokenizer.fast.get_vocab() != fast.get_vocab():
            raise ValueError("the ids are not those of the bytes, then the merges in order, then the special tokens")
        return tokenizer


def is_plain(token: Mapping[str, bool]) -> bool:
    """Whether an added token of a `tokenizer.json` is special and means its name alone, wherever it stands."""
    return token["special"] and not any(token[flag] for flag in ("lstrip", "rstrip", "single_word"))


def build_fast(merges: Merges, tokens: Sequence[bytes], special_tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """The same tokenizer for the Rust package: merges, bytes of every id, special tokens -> its twin."""
    written = [visible(token) for token in tokens]
    vocab = {token: i for i, token in enumerate(written)}
    model = tokenizers.models.BPE(vocab, [(written[a], written[b]) for a, b in merges])
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    fast.decoder = tokenizers.decoders.ByteLevel()
    return add_special_tokens(fast, special_tokens)
