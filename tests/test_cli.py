"""The command line, as a stranger uses it: other people's tables, typing mistakes, pipes."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.cli import app
from palate.store.opening import open_store
from palate.store.records import StoredEvent
from palate.version import __version__ as palate_version

COMMANDS = [
    "init",
    "describe",
    "prepare",
    "train",
    "tune",
    "evaluate",
    "recommend",
    "explain",
    "similar",
    "classify",
    "report",
    "export",
    "serve",
    "demo",
    "doctor",
]
GUEST = 1_709_280_000_000_000
"""8 o'clock on 1 March 2024, in microseconds."""
SMALL = [
    word
    for pair in (
        "model.width=16", "model.blocks=2", "train.max_epochs=4", "train.batch_events=256",
        "train.learning_rate=0.01", "evaluate.bootstrap=50", "evaluate.baselines=[popularity,item_knn]",
    )
    for word in ("--set", pair)
]  # fmt: skip


def palate(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "palate", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A stranger's table: semicolons, a byte-order mark, Chinese, empty cells, mixed types, a bad time."""
    folder = tmp_path_factory.mktemp("shop")
    generator = random.Random(0)
    wares = [("绿茶", "Tee"), ("咖啡豆", "Kaffee"), ("巧克力", "Süß; fein"), ("姜糖", "")]
    lines = ["用户编号;商品编号;下单时间;商品名称;类别;价格"]
    for person in range(60):
        for step in range(generator.randint(4, 9)):
            ware = generator.randrange(40)
            name, kind = wares[ware % 4]
            user = "" if generator.random() < 0.03 else f"{1000 + person}"
            item = f"A{ware:02d}" if ware % 2 else ware
            time = (
                "不知道" if generator.random() < 0.02 else f"2024-03-{1 + step:02d} {person % 24:02d}:15:00"
            )
            cell = f'"{kind}"' if ";" in kind else kind
            lines.append(f"{user};{item};{time};{name} {ware}号;{cell};{ware / 4:.2f}".replace(".", ","))
    (folder / "订单.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    made = palate("init", folder / "订单.csv", "--out", folder / "dataset.yaml")
    assert made.returncode == 0, made.stderr
    url = f"sqlite:///{folder / 'events.db'}"
    with open_store(url) as store:
        store.append(
            [
                StoredEvent(f"e{n}", "guest", f"A{2 * n + 1:02d}", "interaction", GUEST + n * 86_400_000_000)
                for n in range(5)
            ]
        )
    trained = palate(
        "train", folder / "dataset.yaml", "--out", folder / "run", *SMALL, "--events-from", url, "--json"
    )
    assert trained.returncode == 0, trained.stderr
    summary = json.loads(trained.stdout)
    assert summary["metrics"]["ndcg@10"]["value"] > 0
    assert Path(summary["report"]).is_file()
    return folder


def test_a_strangers_table_goes_from_init_to_recommendations(shop):
    found = palate("recommend", shop / "run", "--user", 1003, "-n", 5, "--json")
    assert found.returncode == 0, found.stderr
    rows = json.loads(found.stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert all({"item", "score", "rank"} <= row.keys() for row in rows)


def test_events_of_a_store_are_trained_on_and_their_people_are_known(shop):
    found = palate("recommend", shop / "run", "--user", "guest", "-n", 3, "--json")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)) == 3
    report = json.loads((shop / "run" / "data" / "report.json").read_text(encoding="utf-8"))
    told = {rule["rule"]: rule["detail"] for rule in report["rules"]}
    assert told["events of the store"].startswith("5 events joined")


def test_a_history_is_enough(shop):
    found = palate("recommend", shop / "run", "--history", "A01,2,A03", "-k", 3, "--json")
    rows = json.loads(found.stdout)
    assert len(rows) == 3
    assert not {"A01", "2", "A03"} & {str(row["item"]) for row in rows}


def test_the_version_is_said():
    found = palate("--version")
    assert found.returncode == 0
    assert found.stdout.strip() == palate_version


def test_similar_things(shop):
    rows = json.loads(palate("similar", shop / "run", "--item", "A01", "-k", 4, "--json").stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert "A01" not in {row["item"] for row in rows}


def test_evaluate_has_the_promised_shape(shop):
    found = palate("evaluate", shop / "run", "--json", "--set", "evaluate.filter_seen=false")
    tree = json.loads(found.stdout)
    assert tree["split"] == "leave_one_out"
    assert tree["filter_seen"] is False
    for name in ("ndcg@10", "hit_rate@10", "recall@20", "precision@10", "f1@10", "accuracy", "loss"):
        assert tree["metrics"][name].keys() == {"value", "low", "high"}
    assert tree["baselines"]["popularity"]["ndcg@10"].keys() == {"value", "low", "high"}


def test_answers_can_be_written_as_tables_and_read_by_people(shop, tmp_path):
    written = palate("recommend", shop / "run", "--everyone", "-n", 2, "--out", tmp_path / "all.csv")
    assert written.returncode == 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) > 100
    shown = palate("recommend", shop / "run", "--user", 1003, "-n", 2)
    assert "号" in shown.stdout
    assert palate("describe", shop / "run", "--json").returncode == 0
    assert json.loads(palate("describe", shop / "dataset.yaml", "--json").stdout)["clock"] == "times"
    assert palate("report", shop / "run").returncode == 0


def test_prepare_says_what_each_rule_removed(shop, tmp_path):
    done = palate("prepare", shop / "dataset.yaml", "--out", tmp_path / "data", "--json")
    rules = {note["rule"]: note["removed"] for note in json.loads(done.stdout)["rules"]}
    assert rules["missing keys"] > 0
    assert sum(rules.values()) > rules["missing keys"]


MISTAKES = [
    (["train", "nothing.yaml", "--out", "run"], "nothing.yaml"),
    (["train", "empty.csv", "--out", "run"], "empty"),
    (["train", "text.csv", "--out", "run"], "column"),
    (["recommend", "nowhere", "--user", "1"], "no trained recommender"),
    (["evaluate", "nowhere"], "no trained recommender"),
    (["init", "nothing.csv"], "nothing.csv"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes_end_with_a_message_and_code_2(tmp_path, words, message):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.csv").write_text("colour,size\nred,3\n")
    done = palate(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_mistakes_of_somebody_who_has_a_run(shop):
    for words, message in (
        (["recommend", shop / "run", "--user", "4711"], "'4711'"),
        (["recommend", shop / "run"], "--user"),
        (["recommend", shop / "run", "--user", 1003, "--out", "list.xlsx"], ".csv"),
        (["similar", shop / "run"], "--item"),
        (["evaluate", shop / "run", "--set", "model.width=3"], "evaluate"),
        (["evaluate", shop / "run", "--part", "train"], "validation"),
        (["train", shop / "dataset.yaml", "--out", shop / "run", "--set", "model.widht=3"], "'width'"),
        (["train", shop / "dataset.yaml", "--out", shop], "something else"),
    ):
        done = palate(*words)
        assert done.returncode == 2, words
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert (shop / "run" / "bundle.json").is_file(), "a mistake has cost a run"


def test_strict_makes_bad_rows_fatal(shop, tmp_path):
    done = palate("train", shop / "dataset.yaml", "--out", tmp_path / "run", "--strict")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"palate {command}" in shown.stdout


def test_there_are_no_other_commands():
    assert sorted(command.name or command.callback.__name__ for command in app.registered_commands) == sorted(
        COMMANDS
    )


def test_doctor_prints_one_json_document():
    done = palate("doctor", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["bundled data"] == "there"
