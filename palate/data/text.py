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
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from palate.errors import SettingsError
from palate.schema import IntArray
from palate.settings import PRETRAINED

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


def borrowed_tokenizer(name: str, max_tokens: int) -> Tokenizer:
    """The tokenizer of a pretrained encoder, from the local folder or by the name on the hub; it cuts texts
    after ``max_tokens`` tokens, those that mark beginning and end included.

    Raises:
        SettingsError: it cannot be had.
    """
    path = Path(name) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if Path(name).is_dir() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises nothing more special
        raise SettingsError(
            f"The tokenizer of '{PRETRAINED}{name}' cannot be loaded: {error}. Wanted a folder with "
            "tokenizer.json, or a name on the hub."
        ) from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str | None], max_tokens: int, *, borrowed: bool = False
) -> IntArray:
    """The first ``max_tokens`` tokens of each text, int32 [texts, max_tokens], padded with 0 behind.

    A missing text is an empty one: all 0. Of a ``borrowed`` tokenizer tokens are taken plus one, and marks of
    beginning and end come with them.
    """
    tokens = np.zeros((len(texts), max_tokens), dtype=np.int32)
    for start in range(0, len(texts), ENCODE_ROWS):
        part = [
            (text or "")[: CHARACTERS_PER_TOKEN * max_tokens] for text in texts[start : start + ENCODE_ROWS]
        ]
        encodings = tokenizer.encode_batch(part, add_special_tokens=borrowed)
        for row, (text, encoding) in enumerate(zip(part, encodings, strict=True), start):
            if text:
                ids = np.array(encoding.ids[:max_tokens], dtype=np.int32)
                tokens[row, : len(ids)] = ids + borrowed
    return tokens
