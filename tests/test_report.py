"""The report says what the record says, asks nobody for anything and can hold any text."""

from __future__ import annotations

import copy
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from palate.evaluate import figures
from palate.evaluate.headline import headline
from palate.evaluate.report import RunRecord, render, write_report
from palate.evaluate.results import main_metrics, results
from palate.evaluate.table import results_table
from palate.evaluate.wording import RANKERS, number, seconds
from palate.settings import Settings

VOID = {"meta", "br", "hr", "img", "input", "link", "circle", "path", "use", "rect"}


class Page(HTMLParser):
    """Reads a page and notes what a browser would have to forgive."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.95 * value, "high": 1.05 * value}


def metrics(value: float) -> dict[str, Any]:
    return {
        "ndcg@10": interval(value / 2),
        "hit_rate@10": interval(value),
        "recall@20": interval(1.2 * value),
        "mrr@10": interval(0.4 * value),
        "accuracy": interval(0.3 * value),
    }


def difference(low: float, high: float) -> dict[str, float]:
    return {"difference": (low + high) / 2, "low": low, "high": high, "p": 0.5 if low < 0 < high else 0.001}


def judgement(**changes: Any) -> dict[str, Any]:
    whole = {
        "title": "Test, leave-one-out",
        "split": "leave_one_out",
        "filter_seen": True,
        "people": 4074,
        "catalogue": 3147,
        "metrics": metrics(0.27) | {"loss": interval(6.2)},
        "lists": {"coverage@10": 0.61, "gini@10": 0.5},
        "segments": [
            {
                "group": "history length",
                "name": "4–17",
                "questions": 1222,
                "means": {"ndcg@10": 0.1375},
                "intervals": {"ndcg@10": [0.12, 0.15]},
            },
            {"group": "item", "name": "cold", "questions": 33, "means": {"ndcg@10": 0.01}, "intervals": {}},
        ],
        "events_seen": {
            "metric": "ndcg@10",
            "people": 1871,
            "rows": {
                name: [{"events": n, "value": level + n / 100, "low": level, "high": 0.3} for n in (1, 2, 5)]
                for name, level in (("palate", 0.11), ("popularity", 0.02), ("ease", 0.1))
            },
        },
        "seconds": {"fit": 412.0, "score": 1.9},
        "baselines": {"ease": metrics(0.18), "popularity": metrics(0.08)},
        "baseline_lists": {"ease": {"coverage@10": 0.33, "gini@10": 0.7}},
        "baseline_seconds": {"ease": {"fit": 17.2, "score": 1.2}},
        "baseline_descriptions": {"ease": "λ 200"},
        "comparisons": {
            "ease": {"hit_rate@10": difference(0.071, 0.103), "ndcg@10": difference(0.02, 0.05)},
            "popularity": {"hit_rate@10": difference(-0.01, 0.2)},
        },
        "skipped": {"content_knn": "no item has text"},
    }
    return copy.deepcopy(whole | changes)


DATA: dict[str, Any] = {
    "rules": [
        {"rule": "missing keys", "removed": 1200, "remaining": 8800, "detail": "1,200 without user"},
        {"rule": "robots", "removed": 0, "remaining": 8800, "detail": "", "examples": []},
        {"rule": "k-core", "removed": 100, "remaining": 8700, "detail": "", "examples": ["row 7: user 3"]},
        {"rule": "items without key", "removed": 5, "remaining": 310, "detail": "", "examples": []},
    ],
    "before": {"events": 10_000, "people": 900, "items": 400, "density": 0.028},
    "after": {"events": 8700, "people": 800, "items": 310, "density": 0.035},
    "catalogue": 310,
    "warm_items": 305,
    "events": {"purchase": 8000, "return": 700},
    "target_events": ["purchase"],
    "history_lengths": [{"from": 1, "to": 1, "people": 0}, {"from": 2, "to": 3, "people": 800}],
    "median_history": 3.0,
    "months": [{"month": "2011-01", "events": 4000}, {"month": "2011-02", "events": 4700}],
    "popularity": [[0.1, 0.4], [1.0, 1.0]],
    "split": {
        "kind": "temporal",
        "validation_from": "2011-02-01T00:00:00",
        "test_from": "2011-02-14T00:00:00",
    },
    "parts": {"train": 7000, "validation": 800, "test": 800, "unused": 100},
    "asked": {"test": {"people": 799, "targets": 799, "without_history": 1, "all_seen_before": 2}},
    "fields": [{"name": "title", "kind": "text", "items": 310, "share": 1.0, "distinct": 300}],
}


@pytest.fixture(scope="module")
def record() -> RunRecord:
    training = [
        {"epoch": e, "loss": 5.0 - e, "metric": m, "seconds": 3.0} for e, m in enumerate((0.1, 0.3, 0.2))
    ]
    example = {
        "person": 17,
        "history": [{"item": n, "title": f"earlier {n}", "event": "purchase"} for n in range(12)],
        "recommended": [{"rank": 1, "item": 40, "title": "red lamp"}, {"rank": 2, "item": 41}],
        "then": [{"item": 41, "title": None}, "a bare title"],
    }
    settings = Settings().model_dump(mode="json")
    return RunRecord(
        "shop", "1.2.3", "2026-01-02T03:04:05+00:00", settings, {"cores": 2}, DATA, training, "ndcg@10",
        [judgement(), judgement(title="Test, cold items", split="cold_items")], [example],
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(record: RunRecord) -> str:
    return render(record)


def test_is_well_formed_and_small(page: str) -> None:
    assert Page(page).open == []
    assert len(page.encode()) < 1_500_000


def test_asks_no_host_for_anything(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<img|<iframe", page)
    for _, attributes in Page(page).tags:
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_ids_are_unique_and_references_lead_somewhere(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', page)) <= set(ids)


def test_every_rule_row_field_and_setting_appears(page: str, record: RunRecord) -> None:
    text = Page(page).text
    for rule in DATA["rules"]:
        assert rule["rule"] in text
        assert number(rule["remaining"], 0) in text
    assert "1,200 without user" in text
    assert "row 7: user 3" in text
    for words in (
        "EASE",
        "λ 200",
        "Popularity",
        "Test, cold items",
        "Content k-NN was left out: no item has text",
    ):
        assert words in text
    for section in record.settings.values():
        if isinstance(section, dict):
            assert all(name in text for name in section)
    assert "learning_rate 0.002" in text


def test_figures_have_text_alternatives_and_tables_have_headers(page: str) -> None:
    tags = Page(page).tags
    pictures = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(pictures) > 10
    assert all("aria-label" in a or a.get("aria-hidden") == "true" for a in pictures)
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    assert any("4–17 0.138 (0.120 to 0.150), 1,222 people" in (a.get("aria-label") or "") for a in pictures)


def test_pictures_follow_the_scheme_of_the_page(page: str) -> None:
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not re.search(r"(?:fill|stroke)(?:: |=\")#", pictures)
    assert "font-family: 'DejaVu" not in pictures


def test_the_funnel_counts_events_only(page: str) -> None:
    funnel = re.search(r'aria-label="From the rows read[^"]*"', page)
    assert funnel
    assert "10,000 rows read, missing keys took 1,200, k-core took 100, 8,700 kept" in funnel[0]


def test_the_borders_of_a_split_by_date_are_named(page: str) -> None:
    assert "validation from 2011-02-01" in page
    assert "test from 2011-02-14" in page


def test_the_curve_by_events_seen_names_our_row_and_the_best_others(page: str) -> None:
    figure = figures.events_seen(judgement())
    assert "1,871 people" in figure.caption
    words = "Palate 1 0.120, 2 0.130, 5 0.160; EASE 1 0.110, 2 0.120, 5 0.150; Popularity 1 0.030"
    assert words in str(figure.svg)
    assert "NDCG@10 by events seen" in page
    many = {f"row{n}": [{"events": 1, "value": n / 10, "low": 0, "high": 1}] for n in range(5)}
    ours = {"palate": [{"events": 1, "value": 0.0, "low": 0, "high": 1}]}
    crowd = judgement(
        baselines={name: {} for name in many},
        events_seen={"metric": "ndcg@10", "people": 5, "rows": ours | many},
    )
    drawn = str(figures.events_seen(crowd).svg)
    assert [name in drawn for name in ("Palate", *many)] == [True, False, False, True, True, True]


def test_the_best_pass_is_marked(page: str) -> None:
    assert "best, pass 2: 0.300" in page


def test_an_example_marks_what_was_taken_and_shows_the_latest_history(page: str) -> None:
    card = re.search(r"<article.*?</article>", page, flags=re.DOTALL)
    assert card
    hits = re.findall(r'<li class="hit">.*?</li>', card[0])
    assert len(hits) == 1
    assert "<span>41</span>" in hits[0]
    assert "earlier 11" in card[0]
    assert "earlier 3<" not in card[0]
    assert "after 4 earlier" in card[0]


def test_foreign_text_is_escaped_everywhere(record: RunRecord) -> None:
    evil = "<script>alert(1)</script>\" onload='x' $x_1$ 茶"
    data = copy.deepcopy(DATA)
    data["rules"][0] |= {"rule": evil, "detail": evil, "examples": [evil]}
    data |= {"events": {evil: 8700}, "target_events": [evil], "fields": [{"name": evil, "kind": evil}]}
    hostile = judgement(title=evil, skipped={evil: evil}, baseline_descriptions={evil: evil})
    hostile["baselines"][evil] = metrics(0.3)
    hostile["segments"][0] |= {"name": evil, "group": evil}
    example: dict[str, Any] = {"person": evil, "history": [{"item": evil, "event": evil}]}
    example["recommended"] = [{"title": evil}]
    page = render(
        RunRecord(
            evil,
            evil,
            evil,
            {evil: evil},
            {evil: evil},
            data,
            [],
            evil,
            [hostile],
            [example | {"then": [evil]}],
        )
    )
    assert "<script" not in page
    parsed = Page(page)
    assert parsed.open == []
    assert not any("onload" in attributes for _, attributes in parsed.tags)


@pytest.mark.parametrize("missing", [*DATA, None])
def test_data_reports_without_a_part_are_fine(missing: str | None) -> None:
    data = {key: value for key, value in DATA.items() if missing and key != missing}
    assert Page(render(RunRecord("n", "1", "now", data=data))).open == []


@pytest.mark.parametrize("missing", [*judgement(), None])
def test_judgements_without_a_part_are_fine(missing: str | None) -> None:
    part = {key: value for key, value in judgement().items() if missing and key != missing}
    assert Page(render(RunRecord("n", "1", "now", judgements=[part]))).open == []
    Console(width=100, quiet=True).print(results_table(part))


def test_no_clock_means_no_months_and_one_pass_is_enough(record: RunRecord) -> None:
    training = [{"epoch": 0, "loss": 3.0, "seconds": 1.0}]
    page = render(replace(record, data=DATA | {"months": []}, training=training))
    assert "Events per month" not in page
    assert "Training loss" in page


def test_the_same_record_gives_the_same_page(record: RunRecord, page: str, tmp_path: Path) -> None:
    write_report(tmp_path / "runs" / "report.html", record)
    assert (tmp_path / "runs" / "report.html").read_text(encoding="utf-8") == page


def test_headline_when_ours_leads() -> None:
    said = headline(judgement(), ["purchase"])
    assert said.answer == (
        "Palate finds 27 of 100 next purchases among ten suggestions; the best traditional method, EASE, 18."
    )
    assert said.certainty == "The lead of Palate is certain (95% interval 7.1 to 10.3 of 100)."
    assert [name for name, _ in said.shares] == ["Palate", "EASE"]


def test_headline_when_a_baseline_leads() -> None:
    behind = judgement(
        metrics=metrics(0.031), comparisons={"ease": {"hit_rate@10": difference(-0.17, -0.12)}}
    )
    said = headline(behind, ["view", "purchase"], 0.9)
    assert said.answer == (
        "EASE, a traditional method, finds 18.0 of 100 next items among ten suggestions; Palate 3.1."
    )
    assert said.certainty == "The lead of EASE is certain (90% interval 12.0 to 17.0 of 100)."


def test_headline_when_nothing_is_certain() -> None:
    close = judgement(comparisons={"ease": {"hit_rate@10": difference(-0.004, 0.012)}})
    assert "not certain: its 95% interval runs from −0.4 to 1.2 of 100" in headline(close).certainty
    equal = judgement(metrics=metrics(0.18))
    assert "and so does the best traditional method, EASE" in headline(equal).answer
    by_ndcg = judgement(comparisons={"ease": {"ndcg@10": difference(0.02, 0.05)}})
    assert headline(by_ndcg).certainty.startswith("By NDCG@10, the lead of Palate is certain")
    assert "was not tested" in headline(judgement(comparisons={})).certainty


def test_headline_of_several_targets_speaks_of_people() -> None:
    said = headline(judgement(split="temporal", baselines={}))
    assert said.answer == "Palate finds something right for 27 of 100 people with ten suggestions."
    assert "stands alone" in said.certainty


def test_best_is_lowest_where_lower_is_better_and_verdicts_follow() -> None:
    one = judgement(comparisons={"ease": {"loss": difference(0.1, 0.3)}})
    one["baselines"]["ease"]["loss"] = interval(5.9)
    ours, ease, _ = results(one, ["loss", "gini@10"]).rows[:3]
    assert [cell.best for cell in ours.cells] == [False, True]
    assert [cell.best for cell in ease.cells] == [True, False]
    assert ease.cells[0].verdict == "better"


def test_baselines_are_ordered_by_the_first_column() -> None:
    rows = results(judgement(), main_metrics(judgement())).rows
    assert [row.name for row in rows] == ["Palate", "EASE", "Popularity"]


def test_terminal_table_fits_and_shows_every_row() -> None:
    names = [name for name in RANKERS if name != "palate"]
    full = judgement(
        baselines={name: metrics(0.01 + 0.003 * n) for n, name in enumerate(names)}, metrics=metrics(0.05)
    )
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(full))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, printed.splitlines())) <= 80
    for words in (
        *RANKERS.values(),
        "4,074 people",
        "3,147 items",
        "seen before left out",
        "last item held out",
    ):
        assert words in " ".join(printed.split())
    assert ".0475–.0525" in printed


def test_terminal_table_marks_the_best_in_bold() -> None:
    cells = [str(cell) for column in results_table(judgement()).columns[1:2] for cell in column.cells]
    assert [cell.split("\n")[0] for cell in cells] == ["0.135", "▾ 0.090", "0.040"]
    best = next(iter(results_table(judgement()).columns[1].cells))
    assert any("bold" in str(span.style) for span in best.spans)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1:00 min"), (3725, "1:02 h"), (None, "–")],
)
def test_durations_read_as_people_say_them(value: float | None, words: str) -> None:
    assert seconds(value) == words


def test_a_rule_that_reads_the_order_is_named_as_such_when_it_is_the_best_rival(record: RunRecord) -> None:
    with_rule = judgement(baselines={}, references={"recent_item_knn": metrics(0.01)}, metrics=metrics(0.05))
    assert "the best simple rule, Recent-item k-NN" in headline(with_rule).answer
    assert "Recent-item k-NN" in render(replace(record, judgements=[with_rule]))
