"""Classes of items are told from content: well, from nothing else, and as scikit-learn would count."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.cli import app
from palate.data.labels import Labels, item_parts
from palate.errors import DataError, SettingsError, UnknownKeyError
from palate.evaluate.class_baselines import colour_histograms, logistic_of_colours
from palate.evaluate.classes import (
    best_macro_f1,
    best_threshold,
    class_metrics,
    confusion,
    decide,
    macro_f1,
)
from palate.recommender import Recommender
from palate.schema import Dataset, Field, FieldKind, Media, Part
from tests.test_cli import palate
from tests.test_training import StopAt
from tests.worlds import BLOCK_WORDS, block_world

KINDS = ("coffee", "tea", "leaf", "cocoa")
PEOPLE = {"batch_events": 1024, "max_epochs": 6, "precision": "float32"}
TINY = {
    "model": {"width": 16, "blocks": 1, "max_history": 10, "dropout": 0.1, "text": {"vocabulary": 300}},
    "train": {
        "max_epochs": 10,
        "learning_rate": 1e-2,
        "patience": 10,
        "batch_events": 64,
        "precision": "float32",
    },
    "evaluate": {"baselines": [], "references": [], "bootstrap": 20},
}
ALONE = {**TINY, "tasks": ["item_class"]}


def kind_world(items: int = 200, kind: FieldKind = FieldKind.CATEGORY, **world) -> Dataset:
    """The block world; the words of a title decide its ``kind``, or, of several labels, each its own."""
    shop = block_world(people=2 * items, items=items, **world)
    assert shop.items is not None
    numbers = range(items)
    if kind == FieldKind.CATEGORY:
        table = shop.items.with_columns(kind=pl.Series([KINDS[item % 4] for item in numbers]))
    else:
        pairs = [(item % 6, item // 6 % 6) for item in numbers]
        table = pl.DataFrame(
            {
                "item": shop.items["item"],
                "title": [
                    f"{BLOCK_WORDS[a]} and {BLOCK_WORDS[b]} number {i}" for i, (a, b) in enumerate(pairs)
                ],
                "kind": [sorted({BLOCK_WORDS[a], BLOCK_WORDS[b]}) for a, b in pairs],
            }
        )
    return replace(shop, items=table, fields=(*shop.fields, Field("kind", kind)))


@pytest.fixture(scope="module")
def alone() -> Recommender:
    return Recommender(ALONE).fit(kind_world())


@pytest.fixture(scope="module")
def several() -> Recommender:
    return Recommender({**ALONE, "train": {**TINY["train"], "max_epochs": 20, "batch_events": 32}}).fit(
        kind_world(items=300, kind=FieldKind.CATEGORIES)
    )


def test_words_that_decide_the_class_are_learned(alone):
    (found,) = alone.evaluate_classes()
    assert found.items == {"train": 160, "validation": 20, "test": 20}
    assert found.model.metrics["accuracy"] > 0.95
    assert found.baselines["logistic_words"].metrics["accuracy"] > 0.95
    assert found.baselines["majority"].metrics["accuracy"] < 0.5
    assert "picture" in found.skipped["logistic_colours"]
    assert alone.settings.train.validate_metric == "macro_f1"
    assert alone.progress.history[-1]["metric"] > 0.95


def test_several_labels_are_learned_beyond_the_majority(several):
    (found,) = several.evaluate_classes()
    assert found.model.metrics["macro_f1"] > 0.9
    assert found.baselines["logistic_words"].metrics["macro_f1"] > 0.9
    assert found.baselines["majority"].metrics["macro_f1"] < 0.6
    assert found.model.threshold == round(float(several.model.class_heads()[0].threshold), 2)
    labelled = several.classify(["i007", "i000"])
    assert labelled["item"].unique(maintain_order=True).to_list() == ["i007", "i000"]
    assert labelled["probability"].is_between(0, 1).all()
    everything = several.classify(several.items.table["item"])
    told = dict(everything.group_by("item").agg(pl.col("label").sort()).iter_rows())
    assert (
        np.mean([told[item] == kind for item, kind in several.items.table.select("item", "kind").iter_rows()])
        > 0.9
    )


def test_a_predicted_field_is_no_input(alone):
    assert [part.name for part in alone.model.items.projections] == ["title"]
    assert any(note.rule == "field 'kind'" and "predicted" in note.detail for note in alone.content_notes)


QUICK = {**ALONE, "train": {**TINY["train"], **PEOPLE, "max_epochs": 2}}


@pytest.mark.parametrize("tasks", [["item_class"], ["next_item", "item_class"]])
def test_labels_of_test_items_change_nothing(tasks):
    """Not one weight, and not the answer about one item."""
    world = kind_world(items=80)
    plain = Recommender({**QUICK, "tasks": tasks}).fit(world)
    test = np.flatnonzero(item_parts(plain.prepared, 0) == 2)
    keys = pl.Series(plain.prepared.items.keys(test))
    assert world.items is not None
    assert len(keys) == 8
    lied = world.items.with_columns(
        kind=pl.when(pl.col("item").is_in(keys.implode())).then(pl.lit("stone")).otherwise("kind")
    )
    told = Recommender({**QUICK, "tasks": tasks}).fit(replace(world, items=lied))
    for name, weights in plain.model.state_dict().items():
        assert torch.equal(weights, told.model.state_dict()[name]), name
    everything = world.items["item"]
    assert plain.classify(everything).equals(told.classify(everything))
    assert told.evaluate_classes()[0].model.metrics["accuracy"] == 0  # nobody has ever seen a stone
    assert told.evaluate_classes()[0].unseen == 8
    assert "loss" not in told.evaluate_classes()[0].model.metrics


def test_ids_change_nothing(alone):
    before = alone.classify(["i003", "i004"])
    weights = alone.model.items.id.weight
    kept = weights.detach().clone()
    with torch.no_grad():
        weights.normal_()
    assert alone.classify(["i003", "i004"]).equals(before)
    with torch.no_grad():
        weights.copy_(kept)


def test_which_items_train_and_which_test():
    world = kind_world(items=80)
    prepared = Recommender(QUICK).fit(world).prepared
    parts = item_parts(prepared, 0)
    assert np.bincount(parts[2:], minlength=4).tolist() == [64, 8, 8, 0]
    assert not np.array_equal(parts, item_parts(prepared, 1))
    cold = Recommender({**QUICK, "split": {"kind": "cold_items", "share": 0.2}}).fit(world).prepared
    held = np.unique(np.asarray(cold.histories.item)[cold.part == 2])
    assert np.flatnonzero(item_parts(cold, 0) == 2).tolist() == held.tolist()
    assert len(held) == 16


def test_items_without_a_label_take_no_part():
    world = kind_world(items=80)
    assert world.items is not None
    some = world.items.with_columns(kind=pl.when(pl.int_range(pl.len()) % 5 > 0).then("kind"))
    recommender = Recommender(QUICK).fit(replace(world, items=some))
    labels = Labels.of(recommender.prepared, recommender._fitted().classes[0], 0)
    assert sum(len(labels.ids(part)) for part in Part) == 64
    assert all(
        labels.truth(labels.ids(part)).sum(axis=1).tolist() == [1] * len(labels.ids(part)) for part in Part
    )
    assert recommender.classify(["i000"]).height == 1


def test_a_field_without_held_out_labels_is_learned_and_not_judged():
    world = kind_world(items=40)
    assert world.items is not None
    prepared = Recommender(QUICK).fit(world).prepared
    training = pl.Series(prepared.items.keys(np.flatnonzero(item_parts(prepared, 0) == 0)))
    some = world.items.with_columns(kind=pl.when(pl.col("item").is_in(training.implode())).then("kind"))
    recommender = Recommender(QUICK).fit(replace(world, items=some))
    assert recommender.evaluate_classes() == []
    assert "metric" not in recommender.progress.history[0]
    assert recommender.classify(["i000"]).height == 1


# Metrics


def test_metrics_of_a_known_answer():
    """Classes a, b, c: a is found once of two, b always, c never; one item is of an unknown class."""
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0, 1, 0], [0.2, 0.2, 0.6]], np.float32)
    found = class_metrics(truth, probabilities, None)
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found["micro_precision"] == 0.5
    assert found["micro_recall"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-np.log([0.8, 0.3, 1]).mean(), abs=1e-6)
    shares = confusion(truth, decide(probabilities, None))
    assert shares == ((0.5, 0.5, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0))


def test_every_item_has_a_label_and_a_threshold_adds_others():
    probabilities = np.array([[0.2, 0.1, 0.3], [0.5, 0.6, 0.1]], np.float32)
    assert decide(probabilities, None).tolist() == [[False, False, True], [False, True, False]]
    assert decide(probabilities, 0.4).tolist() == [[False, False, True], [True, True, False]]


matrices = st.integers(0, 10_000).map(np.random.default_rng)


@hypothesis_settings(max_examples=25, deadline=None)
@given(generator=matrices, several=st.booleans())
def test_metrics_are_those_of_scikit_learn(generator, several):
    from sklearn import metrics

    rows, classes = int(generator.integers(8, 30)), int(generator.integers(2, 6))
    exact = generator.dirichlet(np.ones(classes), rows)
    probabilities = exact.astype(np.float32)
    if several:
        truth = generator.random((rows, classes)) < 0.4
        truth[np.arange(rows), generator.integers(0, classes, rows)] = True
        given_labels = decide(probabilities, 0.3)
        found = class_metrics(truth, probabilities, 0.3)
        loss = np.mean(
            [metrics.log_loss(t, p, labels=[0, 1]) for t, p in zip(truth.T, probabilities.T, strict=True)]
        )
        assert found["accuracy"] == metrics.accuracy_score(truth, given_labels)
        assert found["micro_f1"] == pytest.approx(metrics.f1_score(truth, given_labels, average="micro"))
    else:
        label = generator.integers(0, classes, rows)
        truth = np.eye(classes, dtype=bool)[label]
        found = class_metrics(truth, probabilities, None)
        loss = metrics.log_loss(label, exact, labels=np.arange(classes))
        predicted = probabilities.argmax(axis=1)
        recalls = metrics.recall_score(label, predicted, average=None, labels=np.unique(label))
        assert found["accuracy"] == found["micro_f1"] == metrics.accuracy_score(label, predicted)
        assert found["macro_recall"] == pytest.approx(recalls.mean())
    assert found["loss"] == pytest.approx(loss, rel=1e-4)
    assert macro_f1(truth, decide(probabilities, 0.3)) == pytest.approx(
        class_metrics(truth, probabilities, 0.3)["macro_f1"]
    )


def test_the_threshold_is_the_one_that_serves_best():
    truth = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], bool)
    probabilities = np.where(truth, 0.3, 0.12).astype(np.float32)
    assert best_threshold(truth, probabilities) == 0.3
    assert best_threshold(truth[:0], probabilities[:0]) == 0.5
    assert best_threshold(truth, np.where(truth, 0.9, 0.1).astype(np.float32)) == 0.5


def test_colours_tell_what_colours_tell():
    """Reddish things are tea, bluish things coffee; a thing without a picture has no colour."""
    world = kind_world(items=80, blocks=2)
    prepared = Recommender(QUICK).fit(world).prepared
    generator = np.random.default_rng(0)
    size = prepared.items.size
    pictures = generator.integers(0, 90, (size - 2, 6, 6, 3)).astype(np.uint8)
    labels = Labels.learn(prepared, Field("kind", FieldKind.CATEGORY), 0)
    truth = labels.truth(np.arange(2, size))
    assert len(labels.classes) == 4
    pictures[np.arange(size - 2), ..., 0] += (truth[:, 0] | truth[:, 1])[:, None, None] * np.uint8(120)
    pictures[np.arange(size - 2), ..., 2] += (truth[:, 0] | truth[:, 2])[:, None, None] * np.uint8(120)
    media = Media(pictures, np.arange(size - 2), np.concatenate([[0, 0], np.arange(size - 1)]))
    colours = colour_histograms(media)
    assert colours.shape == (size, 512)
    assert np.allclose((colours**2).sum(axis=1), [0, 0] + [1] * (size - 2), atol=1e-5)
    schema = replace(prepared.schema, fields=(*prepared.schema.fields, Field("poster", FieldKind.IMAGE)))
    seen = replace(prepared, schema=schema, media={"poster": media})
    told = logistic_of_colours(seen, labels, ("kind",), best_macro_f1)
    assert not isinstance(told, str)
    test = labels.ids(Part.TEST)
    assert class_metrics(labels.truth(test), told.probabilities(test), None)["accuracy"] == 1.0


# Together, first, alone


def test_alone_nobody_is_recommended_anything(alone):
    for ask in (lambda: alone.recommend(["u001"]), lambda: alone.similar_users(["u001"]), alone.evaluate):
        with pytest.raises(SettingsError, match="start_from"):
            ask()
    assert not alone.can_be_judged()
    near = alone.similar_items(["i000"], k=10)["item"]
    assert all(int(key[1:]) % 4 == 0 for key in near)


def test_together_both_are_learned():
    tasks = ["next_item", {"name": "item_class", "field": "kind", "weight": 0.5}]
    settings = {**TINY, "tasks": tasks, "train": {**TINY["train"], **PEOPLE}}
    recommender = Recommender(settings).fit(kind_world(items=80))
    assert recommender.evaluate_classes()[0].model.metrics["accuracy"] >= 0.75
    found = recommender.recommend([f"u{person:03d}" for person in range(40)], k=3)
    right = [
        int(user[1:]) % 4 == int(item[1:]) % 4 for user, item in found.select("user", "item").iter_rows()
    ]
    assert np.mean(right) > 0.6
    assert recommender.settings.train.validate_metric == "ndcg@10"
    sampled = {**settings, "train": {**settings["train"], "sampled_above": 10, "negatives": 16}}
    again = Recommender(sampled).fit(kind_world(items=80))
    assert again.evaluate_classes()[0].model.metrics["accuracy"] > 0.5


def test_first_the_classes_then_the_people(alone, tmp_path):
    alone.save(tmp_path / "first")
    later = {
        **TINY,
        "train": {**TINY["train"], **PEOPLE, "max_epochs": 1, "start_from": str(tmp_path / "first")},
    }
    still = {**later, "train": {**later["train"], "learning_rate": 1e-12}}
    started = Recommender(still).fit(kind_world())
    mine, theirs = started.model.items.projections[0], alone.model.items.projections[0]
    assert started.model.items.projections[1].name == "kind"
    for name, weights in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], weights, atol=1e-6, rtol=0)
    assert Recommender(later).fit(kind_world()).recommend(["u001"], k=2).height == 2


def test_a_run_to_start_from_has_to_fit(alone, tmp_path):
    alone.save(tmp_path / "first")
    train = {**TINY["train"], "start_from": str(tmp_path / "first")}
    for changes in ({"model": {**TINY["model"], "width": 24}}, {"seed": 5, "split": {"kind": "cold_items"}}):
        with pytest.raises(SettingsError, match="reads no field as this one"):
            Recommender({**TINY, **changes, "train": train}).fit(kind_world())


@pytest.mark.parametrize("steps", [3, 8, 11])
def test_items_alone_resume_bit_for_bit(tmp_path, steps):
    settings = {
        **ALONE,
        "train": {**TINY["train"], "max_epochs": 4, "batch_events": 16, "checkpoint_steps": 3},
    }
    world = kind_world(items=60, kind=FieldKind.CATEGORIES)
    whole = Recommender(settings).fit(world, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Recommender(settings).fit(world, folder=tmp_path / "broken", display=StopAt(steps))
    resumed = Recommender(settings).fit(world, folder=tmp_path / "broken", resume=True)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name
    losses = [[entry["loss"] for entry in run.progress.history] for run in (whole, resumed)]
    assert losses[0] == losses[1]
    loaded = Recommender.load(tmp_path / "broken")
    assert loaded.classify(["i001", "i002"]).equals(whole.classify(["i001", "i002"]))


# What cannot be


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "item_class", "field": "title"}, "of kind text; wanted a category"),
        ({"name": "item_class", "field": "kidn"}, "Did you mean 'kind'"),
        ("item_class", r"could predict kind, other\. Say which"),
    ],
)
def test_a_field_that_cannot_be_predicted_is_named(task, message):
    world = kind_world(items=40)
    assert world.items is not None
    two = replace(
        world,
        items=world.items.with_columns(other=pl.col("kind")),
        fields=(*world.fields, Field("other", FieldKind.CATEGORY)),
    )
    with pytest.raises(SettingsError, match=message):
        Recommender({**TINY, "tasks": [task]}).fit(two)


def test_other_impossible_wishes_say_so(alone):
    world = kind_world(items=40)
    assert world.items is not None
    twice = [{"name": "item_class", "field": "kind"}] * 2
    for settings, data, error, message in (
        (ALONE, block_world(), SettingsError, "these data have none"),
        ({**TINY, "tasks": twice}, world, SettingsError, "predict the same field"),
        ({**ALONE, "model": {"content": False}}, world, SettingsError, "none to read"),
        (ALONE, replace(world, fields=(Field("kind", FieldKind.CATEGORY),)), SettingsError, "none to read"),
        ({**ALONE, "train": {"validate_metric": "ndcg@10"}}, world, SettingsError, "macro_f1"),
        (ALONE, replace(world, items=world.items.with_columns(kind=pl.lit("x"))), DataError, "at least 2"),
    ):
        with pytest.raises(error, match=message):
            Recommender(settings).fit(data)
    with pytest.raises(UnknownKeyError, match="'nothing'"):
        alone.classify(["i000", "nothing"])
    assert alone.classify(["i000", "nothing"], unknown="skip")["item"].to_list() == ["i000"]
    with pytest.raises(SettingsError, match="either items or table"):
        alone.classify()
    with pytest.raises(SettingsError, match="predicts kind"):
        alone.classify(["i000"], field="title")
    with pytest.raises(SettingsError, match="not trained to classify"):
        Recommender({**TINY, "train": {**PEOPLE, "max_epochs": 1}}).fit(world).classify(["i000"])


def test_two_fields_are_predicted_at_once():
    world = kind_world(items=80)
    assert world.items is not None
    table = world.items.with_columns(
        half=pl.when(pl.col("kind").is_in(["tea", "leaf"])).then(1.0).otherwise(2.0)
    )
    table = table.with_columns(half=pl.col("half").cast(pl.String))
    two = replace(world, items=table, fields=(*world.fields, Field("half", FieldKind.CATEGORY)))
    tasks = [{"name": "item_class", "field": name} for name in ("half", "kind")]
    recommender = Recommender({**TINY, "tasks": tasks}).fit(two)
    assert [found.field for found in recommender.evaluate_classes()] == ["half", "kind"]
    assert all(found.model.metrics["accuracy"] > 0.8 for found in recommender.evaluate_classes())
    with pytest.raises(SettingsError, match="predicts half, kind"):
        recommender.classify(["i000"])
    assert recommender.classify(["i000", "i001"], field="kind")["label"].to_list() == ["coffee", "tea"]


# New items, and the command line


def test_new_items_are_labelled_by_any_of_their_fields(alone):
    new = pl.DataFrame({"item": ["a", "b"], "title": ["Green tea 900", "dark cocoa bar"]})
    assert alone.classify(table=new)["label"].to_list() == ["tea", "cocoa"]
    assert alone.classify(table=new.to_pandas())["label"].to_list() == ["tea", "cocoa"]
    bare = alone.classify(table=pl.DataFrame({"item": ["bare"]}))
    assert bare.columns == ["item", "label", "probability"]
    assert bare.height == 1
    assert "a" not in alone.prepared.items
    with pytest.raises(DataError, match="known already"):
        alone.classify(table=pl.DataFrame({"item": ["i000"], "title": ["x"]}))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Tables of a stranger, and a run on them that was trained to classify alone."""
    folder = tmp_path_factory.mktemp("kinds")
    world = kind_world(items=100, kind=FieldKind.CATEGORIES, has_time=False)
    assert world.items is not None
    world.interactions.select("user", "item").collect().write_csv(folder / "events.csv")
    world.items.with_columns(pl.col("kind").list.join("|")).write_csv(folder / "things.csv")
    (folder / "dataset.yaml").write_text(
        "interactions: {table: events.csv, user: user, item: item}\n"
        "items: {table: things.csv, id: item, fields: {title: {kind: text}, kind: {kind: categories}}}\n"
    )
    made = run("train", folder / "dataset.yaml", "--out", folder / "run", *SMALL, "--json")
    assert made.exit_code == 0, made.output
    tree = json.loads(made.stdout)
    (found,) = tree["classes"]
    assert found["task"] == "item_class"
    assert found["metrics"].keys() >= {"macro_f1", "micro_f1", "accuracy", "loss"}
    assert {"majority", "logistic_words"} <= found["baselines"].keys()
    assert found["classes"][0].keys() == {"name", "precision", "recall", "f1", "items"}
    return folder


SMALL = [
    word
    for pair in (
        "tasks=[item_class]", "model.width=16", "model.blocks=1", "train.max_epochs=12",
        "train.batch_events=16", "train.learning_rate=0.01", "model.text.vocabulary=300",
        "train.precision=float32",
    )
    for word in ("--set", pair)
]  # fmt: skip


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_line_labels_known_and_new_items(shop):
    rows = json.loads(run("classify", shop / "run", "i000", "i001", "--json").stdout)
    assert {row["item"] for row in rows} == {"i000", "i001"}
    assert all(row.keys() == {"item", "label", "probability"} for row in rows)
    (shop / "new.csv").write_text("item,title,kind\nnew,green tea and green tea number 5,\nbare,,\n")
    labelled = run("classify", shop / "run", "--table", shop / "new.csv", "--json")
    assert labelled.exit_code == 0, labelled.output
    found = {row["item"]: row["label"] for row in reversed(json.loads(labelled.stdout))}
    assert found.keys() == {"new", "bare"}
    assert found["new"] == "green tea"
    shown = run("classify", shop / "run", "i001")
    assert "green tea" in shown.stdout
    assert run("classify", shop / "run", "i001", "--out", shop / "labels.csv").exit_code == 0
    assert pl.read_csv(shop / "labels.csv").columns == ["item", "label", "probability"]


def test_the_run_folder_keeps_the_judgement_and_shows_it(shop):
    page = (shop / "run" / "report.html").read_text()
    assert "Classes" in page
    assert "tells &#39;kind&#39; of held-out items with a macro F1" in page
    assert "Logistic regression, words" in page
    assert 'aria-label="kind: ' in page
    kept = json.loads((shop / "run" / "evaluation.json").read_text())
    assert [entry["task"] for entry in kept] == ["item_class"]
    assert run("report", shop / "run").exit_code == 0
    again = run("evaluate", shop / "run", "--json")
    assert json.loads(again.stdout)["classes"][0]["metrics"] == kept[0]["metrics"]
    assert "Macro F1" in run("evaluate", shop / "run").stdout
    assert run("describe", shop / "run", "--json").exit_code == 0


def test_mistakes_on_the_command_line_have_a_message(shop):
    (shop / "strange.csv").write_text("item,colour\nnew,red\n")
    for words, message in (
        (("i000", "nothing"), "'nothing'"),
        ((), "either items or table"),
        (("i000", "--field", "title"), "predicts kind"),
        (("--table", shop / "none.csv"), "none.csv"),
        (("--table", shop / "strange.csv"), "'colour' is no field"),
    ):
        done = run("classify", shop / "run", *words)
        assert isinstance(done.exception, (SettingsError, UnknownKeyError, DataError)), (words, done.output)
        assert message in str(done.exception)
    whole = palate("classify", shop / "run", "nothing", "--json")
    assert (whole.returncode, whole.stdout) == (2, "")
    assert "'nothing'" in whole.stderr
    assert "Traceback" not in whole.stderr
    done = run("recommend", shop / "run", "--user", "u001")
    assert "classify items and nothing else" in str(done.exception)
    into_itself = run(
        "train", shop / "dataset.yaml", "--out", shop / "run", "--set", f"train.start_from={shop / 'run'}"
    )
    assert "start_from" in str(into_itself.exception)
    assert (shop / "run" / "bundle.json").is_file()
