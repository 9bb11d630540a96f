"""Sub-word tokens of texts in any language, learned from the training catalogue.

Byte-pair encoding (Sennrich et al., 2016) over characters, after NFKC normalisation and lower-casing.
Words are cut at spaces and punctuation, and every Chinese character is a word of its own, since
Chinese writes no spaces. A character outside the vocabulary becomes its UTF-8 bytes, so that no text
is unreadable.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from palate.schema import IntArray

RESERVED = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
"""Tokens 0, 1 and the 256 bytes, which every vocabulary has."""
CHARACTERS_PER_TOKEN = 32
"""Longer stretches of a text than this times the wanted tokens are not even looked at."""
ENCODE_ROWS = 16_384


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most ``vocabulary`` tokens (never fewer than the 258 reserved ones).

    Equal texts give an equal tokenizer, in any order. Characters that occur once are left to the
    bytes: a token met once teaches nothing, and the byte tokens would otherwise never be trained.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=RESERVED[1], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"), pre_tokenizers.Whitespace()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, len(RESERVED)),
        special_tokens=RESERVED,
        limit_alphabet=_alphabet_size(tokenizer, texts, vocabulary),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer also registers its special tokens for literal matching; a title that happens to
    # contain "<pad>" must be read as text.
    state = json.loads(tokenizer.to_str())
    return Tokenizer.from_str(json.dumps(state | {"added_tokens": []}))


def _alphabet_size(tokenizer: Tokenizer, texts: Sequence[str], vocabulary: int) -> int:
    """How many characters get a token: those that occur twice, or more often where room is short.

    Whole classes of equal counts are taken, because ties would be broken at random.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    seen = Counter(count for character, count in counts.items() if not character.isspace())
    room, size = max(vocabulary - len(RESERVED), 0), 0
    for count in sorted(seen, reverse=True):
        if count < 2 or size + seen[count] > room:
            break
        size += seen[count]
    return size


def tokenize(tokenizer: Tokenizer, texts: Sequence[str | None], max_tokens: int) -> IntArray:
    """The first ``max_tokens`` tokens of each text, int32 [texts, max_tokens], padded with 0 behind.

    A missing text is an empty one: all 0.
    """
    tokens = np.zeros((len(texts), max_tokens), dtype=np.int32)
    for start in range(0, len(texts), ENCODE_ROWS):
        part = [
            (text or "")[: CHARACTERS_PER_TOKEN * max_tokens] for text in texts[start : start + ENCODE_ROWS]
        ]
        for row, encoding in enumerate(tokenizer.encode_batch(part, add_special_tokens=False), start):
            ids = encoding.ids[:max_tokens]
            tokens[row, : len(ids)] = ids
    return tokens
