"""Tokens of texts, and the convolutions that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from tokenizers import Tokenizer

from palate.data.text import RESERVED, tokenize, train_tokenizer
from palate.nn.text import TextEncoder
from palate.settings import TextSettings

TITLES = [
    "WHITE HANGING HEART T-LIGHT HOLDER",
    "RED HANGING HEART T-LIGHT HOLDER",
    "红色心形灯",
    "白色心形灯",
    "white metal lantern",
    "red metal lantern",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TITLES, 400)


def test_chinese_titles_give_one_token_per_character(tokenizer: Tokenizer) -> None:
    tokens = tokenize(tokenizer, ["红色心形灯", "白色心形灯"], 8)
    # 红 and 白 occur once and are three bytes each; the shared four characters are known.
    assert (tokens[0] != 0).sum() == 3 + 4
    assert tokens[0, 3:7].tolist() == tokens[1, 3:7].tolist()
    assert all(token >= len(RESERVED) for token in tokens[0, 3:7])


def test_case_and_width_of_letters_do_not_matter(tokenizer: Tokenizer) -> None:
    tokens = tokenize(tokenizer, ["Metal Lantern", "ＭＥＴＡＬ　lantern", "metal lantern"], 6)
    assert tokens[0].tolist() == tokens[1].tolist() == tokens[2].tolist()


def test_frequent_words_become_single_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenize(tokenizer, ["hanging heart"], 6)[0] != 0).sum() == 2


def test_missing_and_blank_texts_are_all_padding(tokenizer: Tokenizer) -> None:
    assert not tokenize(tokenizer, [None, "", " \t\n"], 5).any()


def test_no_text_is_unreadable(tokenizer: Tokenizer) -> None:
    tokens = tokenize(tokenizer, ["ሀሎ", "🎁", "ñ"], 16)
    assert [(row != 0).sum() for row in tokens] == [6, 4, 2]
    assert ((tokens == 0) | ((tokens >= 2) & (tokens < len(RESERVED)))).all()


def test_names_of_reserved_tokens_are_read_as_text(tokenizer: Tokenizer) -> None:
    tokens = tokenize(tokenizer, ["<pad> <unk> <0x41>"], 32)
    length = (tokens[0] != 0).sum()
    assert length > 9
    assert (tokens[0, :length] > 1).all()


def test_long_texts_are_cut(tokenizer: Tokenizer) -> None:
    whole = tokenize(tokenizer, [" ".join(TITLES)], 64)
    assert tokenize(tokenizer, [" ".join(TITLES)], 3)[0].tolist() == whole[0, :3].tolist()
    assert tokenize(tokenizer, ["x" * 1_000_000], 3).shape == (1, 3)


def test_the_order_of_training_texts_does_not_matter_and_json_restores() -> None:
    first = train_tokenizer(TITLES, 400).to_str()
    assert train_tokenizer(TITLES[::-1], 400).to_str() == first
    restored = Tokenizer.from_str(first)
    assert np.array_equal(
        tokenize(restored, TITLES, 12), tokenize(Tokenizer.from_str(restored.to_str()), TITLES, 12)
    )


@pytest.mark.parametrize("vocabulary", [1, 258, 262, 270, 400])
def test_the_vocabulary_keeps_its_size(vocabulary: int) -> None:
    size = train_tokenizer(TITLES, vocabulary).get_vocab_size()
    assert len(RESERVED) <= size <= max(vocabulary, len(RESERVED))


def test_a_catalogue_without_texts_still_tokenizes() -> None:
    tokenizer = train_tokenizer([], 400)
    assert (tokenize(tokenizer, ["ab"], 4)[0] != 0).sum() == 2


SMALL = TextSettings(
    vocabulary=30, max_tokens=9, width=4, kernel_sizes=(1, 3), filters=5, token_dropout=0.0, dropout=0.0
)


def slow_encode(encoder: TextEncoder, tokens: list[int]) -> torch.Tensor:
    """One text, one filter at a time, by scipy's correlation."""
    length = sum(token != 0 for token in tokens)
    if not length:
        return encoder.dense(torch.zeros(encoder.dense.in_features))
    vectors = encoder.embedding.weight[tokens[:length]].detach().numpy()
    features = []
    for size, kernel in zip(encoder.kernel_sizes, encoder.kernels, strict=True):
        padded = np.vstack([vectors, np.zeros((size - 1, vectors.shape[1]), dtype=np.float32)])
        for weight, bias in zip(kernel.weight.detach().numpy(), kernel.bias.detach().numpy(), strict=True):
            response = correlate(padded, weight.reshape(size, -1), mode="valid", method="direct")
            features.append(max(0.0, float(response.max() + bias)))
    return encoder.dense(torch.tensor(features))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(2, 29), max_size=9), max_size=6), st.integers(0, 1000))
def test_the_encoder_is_correlation_then_relu_then_maximum(texts: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    encoder = TextEncoder(30, 7, SMALL)
    for kernel in encoder.kernels:
        torch.nn.init.normal_(kernel.bias, std=0.1)
    rows = [text + [0] * (9 - len(text)) for text in texts]
    fast = encoder(torch.tensor(rows, dtype=torch.int32).reshape(-1, 9))
    assert fast.shape == (len(rows), 7)
    for row, vector in zip(rows, fast, strict=True):
        torch.testing.assert_close(vector, slow_encode(encoder, row), atol=1e-5, rtol=1e-5)


def test_padding_never_wins() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(30, 7, SMALL)
    for kernel in encoder.kernels:
        torch.nn.init.constant_(kernel.weight, -1.0)
    short = torch.tensor([[3, 4]])
    long = torch.tensor([[3, 4, 0, 0, 0, 0]])
    beside = torch.tensor([[3, 4, 0, 0, 0, 0], [5, 6, 7, 8, 9, 10]])
    assert torch.equal(encoder(short), encoder(long))
    torch.testing.assert_close(encoder(beside)[:1], encoder(long))


def test_the_padding_vector_gets_no_gradient() -> None:
    encoder = TextEncoder(30, 7, SMALL)
    encoder(torch.tensor([[3, 4, 0], [0, 0, 0]])).sum().backward()
    gradient = encoder.embedding.weight.grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[3].any()


def test_tokens_are_dropped_in_training_only_and_as_often_as_wanted() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(30, 4, SMALL.model_copy(update={"token_dropout": 0.25, "kernel_sizes": (1,)}))
    tokens = torch.full((4000, 1), 7, dtype=torch.int32)
    nothing = encoder.dense(torch.zeros(1, 5))  # biases of the kernels begin at zero
    empty = (encoder(tokens) - nothing).abs().amax(dim=1) < 1e-7
    assert 0.22 < empty.float().mean() < 0.28
    assert torch.equal(encoder.eval()(tokens), encoder(tokens))
    assert not ((encoder(tokens) - nothing).abs().amax(dim=1) < 1e-7).any()
