"""A recommender without PyTorch says what the one with it says: of histories, of new things, of changes."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from palate.cli import app
from palate.data.batches import make_batch
from palate.data.columns import CategoryColumn, MediaColumn, TextColumn, VectorColumn
from palate.errors import BundleError, DataError, ExportError, SettingsError
from palate.evaluate.network import NetworkRanker
from palate.export import folder as export_folder
from palate.export.check import difference_of_field, difference_of_tower
from palate.export.folder import export_run
from palate.export.graphs import FieldGraph, HistoryGraph, TowerGraph, write_graph
from palate.nn.fields import build_field_encoder
from palate.nn.item import ItemTower
from palate.nn.model import TasteModel
from palate.recommender import Recommender
from palate.runtime.graph import Graph
from palate.runtime.model import EVENTS_AT_A_TIME, ServingModel
from palate.schema import (
    UNKNOWN_TIME,
    Content,
    Dataset,
    EncodedField,
    Field,
    FieldKind,
    FieldShape,
    Histories,
    Media,
    Questions,
)
from palate.settings import ModelSettings, TextSettings
from tests.worlds import block_world

SETTINGS = {
    "model": {
        "width": 16,
        "blocks": 3,
        "dilations": [1, 2, 4],
        "max_history": 12,
        "again": "learned",
        "question_time": True,
        "question_event": True,
        "text": {"width": 8, "filters": 8, "max_tokens": 6},
        "image": {"size": 8, "filters": [8], "dense": 8},
    },
    "train": {"max_epochs": 2, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
}
NOON = 1_700_000_000_000_000
HOUR = 3_600_000_000


def shelf(folder: Path) -> Dataset:
    """The block world with views and purchases, and fields of most kinds."""
    world, generator = block_world(people=40), np.random.default_rng(5)
    bought = pl.when(pl.col("row") % 3 == 0).then(pl.lit("buy")).otherwise(pl.lit("view"))
    for item in range(0, 40, 2):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{item:03d}.png")
    items = world.items.with_columns(
        brand=pl.Series([f"b{n % 5}" if n % 7 else None for n in range(40)]),
        tags=pl.Series([[f"t{n % 3}", "all"][: n % 3] or None for n in range(40)]),
        price=pl.Series([float(n) if n % 4 else None for n in range(40)]),
        cover=pl.Series([f"i{n:03d}.png" if n % 2 == 0 else None for n in range(40)]),
    )
    kinds = {
        "brand": FieldKind.CATEGORY,
        "tags": FieldKind.CATEGORIES,
        "price": FieldKind.NUMBER,
        "cover": FieldKind.IMAGE,
    }
    fields = (*world.fields, *(Field(name, kind) for name, kind in kinds.items()))
    return replace(
        world,
        interactions=world.interactions.with_columns(event=bought),
        fields=fields,
        items=items,
        media_folder=folder,
    )


def exported(folder: Path) -> Path:
    """A run with an export, whose items i003 and i004 were removed."""
    recommender = Recommender(SETTINGS).fit(shelf(folder))
    with torch.no_grad():  # what begins at zero would hide mistakes after so few steps
        for parameter in recommender.model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.02)
        for module in recommender.model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0  # which no training moves
    recommender.items.remove(["i003", "i004"])
    recommender.save(folder / "run")
    done = CliRunner().invoke(app, ["export", str(folder / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["folder"] == str(folder / "run" / "serving")
    return folder / "run"


@pytest.fixture(scope="module")
def run(exported_run) -> Path:
    return exported_run


@pytest.fixture
def recommender(run) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def served(run) -> ServingModel:
    return ServingModel.load(run / "serving")


@pytest.fixture(scope="module")
def ranker(run) -> NetworkRanker:
    return NetworkRanker(Recommender.load(run).model)


@st.composite
def random_histories(draw) -> Histories:
    items = draw(st.lists(st.lists(st.integers(2, 41), max_size=30), min_size=1, max_size=6))
    histories = Histories.of(items)
    events = len(histories.item)
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    time = NOON + np.cumsum(np.exp(generator.uniform(0, 16, events)) * 1e6).astype(np.int64)
    time[generator.random(events) < 0.1] = UNKNOWN_TIME
    return Histories(
        histories.offsets, histories.item, generator.integers(0, 2, events).astype(np.uint8), time
    )


@settings(max_examples=60, deadline=None)
@given(random_histories(), st.sampled_from([None, NOON, NOON + 99 * HOUR]), st.sampled_from([None, 0, 1]))
def test_scores_are_those_of_the_network(served, ranker, histories, at, event):
    found = served.states(histories, at, event).scores(served.vectors)
    assert found.dtype == np.float32
    expected = ranker.score(Questions.without_answer(histories, at, event))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bonuses_are_of_the_own_past_and_what_is_asked_moves_the_answer(served):
    histories = Histories.of([[5, 6, 5], [], [7]])
    answer = served.states(histories)
    assert [sorted(answer.bonuses.of(row)[0]) for row in range(3)] == [[5, 6], [], [7]]
    assert np.abs(answer.bonuses.value).min() > 0
    for asked in (served.states(histories, at=NOON), served.states(histories, event=1)):
        assert np.abs(asked.states - answer.states).max() > 1e-4


def test_many_histories_are_answered_in_chunks_and_by_many_threads_alike(served):
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 60, 1000)
    histories = Histories.of([generator.integers(2, 42, length).tolist() for length in lengths])
    assert len(histories.item) > EVENTS_AT_A_TIME
    whole = served.states(histories).scores(served.vectors)
    parts = [histories.select(np.arange(start, start + 50)) for start in range(0, 1000, 50)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(served.states, parts))
    together = np.concatenate([answer.scores(served.vectors) for answer in answers])
    np.testing.assert_allclose(together, whole, atol=1e-4)


def test_what_may_be_recommended_is_what_the_recommender_recommends(served, recommender):
    found = recommender.recommend(histories=[[]], k=99, filter_seen=False)["item"]
    assert served.prepared.items.keys(np.flatnonzero(served.allowed)) == found.sort().to_list()
    assert served.filter_seen is recommender.settings.evaluate.filter_seen
    np.testing.assert_allclose(served.vectors, recommender.model.items().detach(), atol=1e-6)


# Items


def covers(seeds: list[list[int]]) -> Media:
    """Of each item the random pictures of these numbers."""
    values = np.stack([noise(seed) for seed in range(9)])
    row = np.array([seed for several in seeds for seed in several], np.int64)
    return Media(values, row, np.cumsum([0, *map(len, seeds)]))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


NEW = pl.DataFrame(
    {
        "item": ["n1", "n2", "n3", "n4"],
        "title": ["espresso roast 7", None, "green tea of the longest leaf in all of the valley", ""],
        "brand": ["b1", "never seen", None, None],
        "tags": [["t1", "all", "t2"], ["t0"], None, []],
        "price": [3.0, None, 1e9, None],
    }
)
SHOWN = {"cover": covers([[3], [1, 2], [], []])}


def added(recommender: Recommender, table: pl.DataFrame, media: dict[str, Media]) -> np.ndarray:
    recommender.items.add(table, media=media)
    return vectors_of(recommender, table["item"])


def vectors_of(recommender: Recommender, keys: pl.Series) -> np.ndarray:
    return recommender.model.items().detach().numpy()[recommender.prepared.items.ids(keys)]


@pytest.mark.parametrize("table", [NEW, NEW.select("item", "price"), NEW.select("item"), NEW.head(0)])
def test_a_new_item_has_the_vector_that_adding_it_gives(served, recommender, table):
    media = SHOWN if "title" in table.columns and table.height else {}
    found = served.encode_items(table, media)
    assert found.shape == (table.height, 16)
    may = served.may_be_recommended(table, media)
    if table.height:
        np.testing.assert_allclose(found, added(recommender, table, media), atol=1e-5)
        known = recommender.recommend(histories=[[]], k=99, filter_seen=False)["item"]
        assert may.tolist() == table["item"].is_in(known.implode()).to_list()


def test_a_known_item_has_the_vector_that_updating_it_gives(served, recommender):
    changes: list[tuple[pl.DataFrame, dict[str, Media]]] = [
        (pl.DataFrame({"item": ["i000", "i007"], "price": [5.0, None]}), {}),
        (pl.DataFrame({"item": ["i002"], "title": ["mint syrup"], "tags": [None]}), {}),
        (pl.DataFrame({"item": ["i006"]}), {"cover": covers([[4, 5]])}),
        (pl.DataFrame({"item": ["i008"], "cover": ["gone.png"]}), {"cover": covers([[]])}),
    ]
    for table, media in changes:
        found = served.encode_items(table, media)
        before = vectors_of(recommender, table["item"])
        recommender.items.update(table, media=media)
        expected = vectors_of(recommender, table["item"])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(expected - before).max() > 1e-4


def test_a_removed_item_comes_back_as_the_table_says_alone(served, recommender):
    table = pl.DataFrame({"item": ["i004"], "title": ["green tea"]})
    np.testing.assert_allclose(served.encode_items(table), added(recommender, table, {}), atol=1e-5)


def test_items_that_came_later_are_heard_in_histories(served, recommender):
    longer = np.concatenate([served.vectors, served.encode_items(NEW, SHOWN)])
    recommender.items.add(NEW, media=SHOWN)
    first = recommender.prepared.items.ids(["n1"])[0]
    assert first == len(served.vectors)
    histories = Histories.of([[4, int(first), 5]])
    found = served.states(histories, vectors=longer).scores(longer)
    expected = NetworkRanker(recommender.model).score(Questions.without_answer(histories))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_uploads_show_what_files_show(served, recommender, tmp_path):
    Image.fromarray(noise(3)).save(tmp_path / "three.png")
    content = (tmp_path / "three.png").read_bytes()
    table = pl.DataFrame({"item": ["n1", "n2"], "cover": ["three.png", None]})
    recommender.items.add(table, media_folder=tmp_path)
    found = served.encode_items(table, served.media_of({"cover": [[content], []]}))
    np.testing.assert_allclose(found, vectors_of(recommender, table["item"]), atol=1e-5)
    for uploads, reason in (
        ({"cover": [[], [content[:60]]]}, "'cover', of item 2, cannot be used: truncated"),
        ({"title": [[content]]}, "no field of pictures"),
    ):
        with pytest.raises(DataError, match=reason):
            served.media_of(uploads)


def test_a_table_that_cannot_be_used_is_refused_as_by_the_recommender(served):
    for table, reason in (
        (pl.DataFrame({"key": ["n1"]}), "column 'item'"),
        (pl.DataFrame({"item": ["n1", "n1"]}), "twice"),
        (pl.DataFrame({"item": ["n1"], "prise": [1.0]}), "Did you mean 'price'"),
    ):
        with pytest.raises(DataError, match=reason):
            served.encode_items(table)


# The folder

ALONE = """
import sys

FORBIDDEN = ["torch", "lightning_fabric", "scipy", "sklearn", "implicit", "matplotlib", "optuna", "onnx"]
sys.modules.update(dict.fromkeys(FORBIDDEN))  # whoever imports one of them gets an error

import numpy as np
import polars as pl
from palate.runtime.model import ServingModel
from palate.schema import Histories

served = ServingModel.load(sys.argv[1])
answer = served.states(Histories.of([[5, 6], []]))
table = pl.DataFrame({"item": ["new"], "title": ["green tea"], "price": [2.0]})
vectors = np.concatenate([answer.scores(served.vectors), served.encode_items(table) @ served.vectors.T])
assert not any(map(sys.modules.get, FORBIDDEN))
sys.stdout.buffer.write(vectors.astype("<f4").tobytes())
"""


def test_a_process_without_pytorch_answers_the_same(run, served):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(run / "serving")], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    told = np.frombuffer(done.stdout, "<f4").reshape(3, -1)
    answer = served.states(Histories.of([[5, 6], []]))
    np.testing.assert_array_equal(told[:2], answer.scores(served.vectors))


def test_the_manifest_says_what_was_compared_and_graphs_nothing_of_the_machine(run):
    manifest = json.loads((run / "serving" / "serving.json").read_text())
    fields = {f"field '{name}'" for name in ("title", "brand", "tags", "price", "cover")}
    assert manifest["differences"].keys() == {"scores", "items", *fields}
    assert all(0 <= difference <= 1e-4 for difference in manifest["differences"].values())
    for path in (run / "serving").rglob("*.onnx"):
        assert str(path.relative_to(run / "serving")) in manifest["files"]
        assert b".py" not in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["serving.json", "content.json", "history.onnx", "fields/title.onnx", "vectors.safetensors"]
)
@pytest.mark.parametrize("damage", ["altered", "cut", "gone"])
def test_a_damaged_export_is_refused(run, tmp_path, name, damage):
    shutil.copytree(run / "serving", tmp_path / "serving")
    path = tmp_path / "serving" / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-9] if damage == "cut" else bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(BundleError, match="export again"):
        ServingModel.load(tmp_path / "serving")


def test_what_is_no_export_or_a_newer_one_is_refused(run, tmp_path):
    with pytest.raises(BundleError, match="holds no exported recommender"):
        ServingModel.load(run)
    shutil.copytree(run / "serving", tmp_path / "serving")
    path = tmp_path / "serving" / "serving.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(BundleError, match=r"format 2.*Export the run again"):
        ServingModel.load(tmp_path / "serving")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(BundleError, match="something else than an export"):
        export_run(run, tmp_path / "other")
    assert (tmp_path / "other" / "letter.txt").exists()


def test_who_knows_nobodys_taste_is_not_exported(tmp_path):
    world = block_world()
    items = world.items.with_columns(kind=pl.Series([f"k{n % 4}" for n in range(40)]))
    fields = (*world.fields, Field("kind", FieldKind.CATEGORY))
    given = {"model": SETTINGS["model"], "tasks": ["item_class"], "train": {"max_epochs": 1}}
    Recommender(given).fit(replace(world, items=items, fields=fields), folder=tmp_path)
    with pytest.raises(SettingsError, match="nobody's taste"):
        export_run(tmp_path)


# Graphs


@pytest.mark.slow
def test_a_graph_that_differs_is_not_left_behind(run, tmp_path, monkeypatch):
    shutil.copytree(run / "serving", tmp_path / "serving")
    monkeypatch.setattr(export_folder, "MOST_DIFFERENCE", 0.0)
    before = (tmp_path / "serving" / "serving.json").read_bytes()
    with pytest.raises(ExportError, match="differs from the network by"):
        export_run(run, tmp_path / "serving")
    assert (tmp_path / "serving" / "serving.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["serving"]


def test_the_check_sees_a_graph_of_other_weights(tmp_path):
    tower = ItemTower(ModelSettings(width=8), Content(5, (price(5),)))
    graph = TowerGraph(tower)
    write_graph(graph, tmp_path / "tower.onnx")
    assert difference_of_tower(Graph(tmp_path / "tower.onnx", 1), graph) < 1e-6
    with torch.no_grad():
        tower.projections[0].gate.add_(1.0)
    assert difference_of_tower(Graph(tmp_path / "tower.onnx", 1), graph) > 1e-3


def price(rows: int) -> EncodedField:
    values = np.stack([np.arange(rows) / 8, np.ones(rows)], axis=1).astype(np.float32)
    return EncodedField(FieldShape("price", FieldKind.NUMBER, 2), values, np.ones(rows, np.bool_))


def plain_model(encoder: str, items: int, **changes: object) -> TasteModel:
    torch.manual_seed(0)
    tree = {"encoder": encoder, "width": 16, "blocks": 2, "max_history": 9, "again": "never", **changes}
    built = ModelSettings.model_validate(tree)
    warm = np.ones(items, np.bool_)
    return TasteModel(built, Content(items), warm, num_ids=items, num_event_types=1, has_time=False).eval()


@pytest.mark.parametrize(
    ("encoder", "changes"),
    [
        ("pooling", {}),
        pytest.param(
            "convolution", {"memory": False, "feed_forward": 0, "kernel_size": 2}, marks=pytest.mark.slow
        ),
        pytest.param("convolution", {"activation": "silu", "again": "ignored"}, marks=pytest.mark.slow),
        pytest.param("nextitnet", {}, marks=pytest.mark.slow),
        pytest.param("caser", {}, marks=pytest.mark.slow),
        pytest.param("classic", {"classic": {"window": 8, "filters": [4]}}, marks=pytest.mark.slow),
    ],
)
def test_the_graph_of_every_encoder_gives_its_states(tmp_path, encoder, changes):
    model = plain_model(encoder, 20_000, **changes)
    write_graph(HistoryGraph(model), tmp_path / "history.onnx")
    assert (tmp_path / "history.onnx").stat().st_size < 200_000  # without the catalogue
    graph, table = Graph(tmp_path / "history.onnx", 1), model.items().detach()
    generator = np.random.default_rng(0)
    histories = [generator.integers(2, 30, length).tolist() for length in (*range(11), 0, 9)]
    for chosen in (histories, *([history] for history in histories)):
        batch = make_batch(Histories.of(chosen), max_history=9, has_time=False)
        expected = model.last_states(batch.map(torch.from_numpy), table).detach()
        given = {name: column for name, column in batch._asdict().items() if name != "past"}
        [states] = graph(vectors=table.numpy()[batch.item], **given)
        np.testing.assert_allclose(states, expected, atol=1e-5)


IMAGE = {"size": 12, "filters": [4], "dense": 6}


@pytest.mark.parametrize(
    ("column", "tree"),
    [
        (TextColumn.fit("x", pl.Series("x", ["a b", "c d e"]), TextSettings(max_tokens=5)), {}),
        (CategoryColumn("x", FieldKind.CATEGORIES, ("a", "b", "c")), {}),
        pytest.param(VectorColumn("x", 3), {}, marks=pytest.mark.slow),
        *(
            pytest.param(MediaColumn("x", kind, shape), tree, marks=pytest.mark.slow)
            for kind, shape, tree in [
                (FieldKind.IMAGE, (12, 12, 3), {"image": {**IMAGE, "encoder": "classic"}}),
                (FieldKind.AUDIO, (16, 20), {"audio": {"bands": 16, "filters": [4], "dense": 6}}),
                (FieldKind.VIDEO, (3, 12, 12, 3), {"video": {**IMAGE, "frames": 3}}),
                (FieldKind.VIDEO, (3, 12, 12, 3), {"video": {**IMAGE, "frames": 3, "encoder": "volume"}}),
            ]
        ),
    ],
)
def test_the_graph_of_every_field_gives_its_vectors(tmp_path, column, tree):
    torch.manual_seed(0)
    built = ModelSettings.model_validate({"width": 16, **tree})
    encoder = build_field_encoder(column.shape, built).eval()
    written = FieldGraph(encoder, column)
    write_graph(written, tmp_path / "field.onnx")
    graph = Graph(tmp_path / "field.onnx", 1)
    assert difference_of_field(graph, written, seed=1) < 1e-5
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1)
    assert difference_of_field(graph, written, seed=1) > 1e-3
