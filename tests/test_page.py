"""The page in a real browser, on a real server: every screen, both languages, the keyboard alone.

The pictures in the documents are made here: PALATE_SCREENSHOTS=docs/images names the folder they go to.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from palate.data.source import read_dataset
from palate.recommender import Recommender
from palate.samples import sample_path
from tests.pottery import picture, trained, warehouse

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
AXE = Path(__file__).parent / "axe" / "axe.min.js"
FIRST_PAINT = 1_000  # milliseconds
ANSWERED = 200
SCREENS = ("overview", "person/guest-03", "item", "item/dcut", "new", "compare", "compare/guest-03", "map")

PICTURES = ("overview-en", "overview-zh", "map-en", "what-if", "new-item", "why")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@contextmanager
def serving(run: Path, *options: str, **keys: str) -> Iterator[str]:
    """A server of its own process on the run; where it is found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "palate", "serve", str(run), "--port", str(port)]
    command += ["--store", f"sqlite:///{run.parent / f'{run.name}-{port}.db'}", *options]
    with (run.parent / f"server-{port}.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(Path(log.name).read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("pottery") / "autumn")


@pytest.fixture(scope="module")
def server(run):
    """On the run, and beside it on a copy of it."""
    other = run.with_name("winter")
    shutil.copytree(run, other)
    with serving(run, "--beside", str(other)) as origin:
        yield origin


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


class Watched:
    """A page of which everything that it says and asks is written down."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self.origin = page, origin
        self.said: list[str] = []
        self.outside: list[str] = []
        self.awaited = 0
        page.on(
            "console", lambda message: message.type in ("error", "warning") and self.said.append(message.text)
        )
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", self._asked)
        page.on("requestfinished", self._answered)
        page.on("requestfailed", self._answered)
        page.set_default_timeout(5_000)

    def _answered(self, request) -> None:
        self.awaited -= 1

    def _asked(self, request) -> None:
        self.awaited += 1
        if not request.url.startswith((self.origin, "data:", f"blob:{self.origin}")):
            self.outside.append(request.url)

    def go(self, screen: str) -> None:
        """The screen is open, and everything that it asked for is there."""
        self.page.goto(f"{self.origin}/#/{screen}")
        expect(self.page.locator("h1")).to_be_visible()
        self.settle()

    def settle(self) -> None:
        """Nothing that was asked for is still to come; what an answer leads to asks within a moment."""
        quiet, deadline = 0, time.monotonic() + 20
        while quiet < 4:
            assert time.monotonic() < deadline, "the page does not come to rest"
            self.page.wait_for_timeout(40)
            quiet = quiet + 1 if not self.awaited and not self.page.locator(".waiting").count() else 0

    def serious(self) -> list[str]:
        """Faults that axe calls serious or critical."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("() => axe.run()")["violations"]
        return [
            f"{fault['id']}: {node['html'][:120]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]


@pytest.fixture
def opened(browser, server):
    """Opens watched pages; afterwards none has said an error or asked anybody else."""
    pages: list[Watched] = []

    def open_page(origin: str = server, **options) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 850}} | options)
        pages.append(Watched(context.new_page(), origin))
        return pages[-1]

    yield open_page
    for watched in pages:
        watched.page.context.close()
        assert watched.said == []
        assert watched.outside == []


def picture_of(watched: Watched, name: str) -> None:
    """A picture for the documents, where somebody asked for them."""
    folder = os.environ.get("PALATE_SCREENSHOTS")
    if folder and name in PICTURES:
        watched.page.wait_for_timeout(300)
        watched.page.screenshot(path=Path(folder) / f"page-{name}.png")


@pytest.mark.parametrize(
    ("language", "scheme", "width"), [("en", "light", 1200), ("zh", "dark", 390)], ids=["desk", "phone"]
)
def test_every_screen_is_sound_in_both_languages_by_day_and_night(opened, language, scheme, width):
    locale = {"en": "en-GB", "zh": "zh-CN"}[language]
    watched = opened(viewport={"width": width, "height": 850}, color_scheme=scheme, locale=locale)
    for screen in SCREENS:
        watched.go(screen)
        assert watched.page.locator("html").get_attribute("lang") == {"en": "en", "zh": "zh-Hans"}[language]
        chinese = re.search(r"[\u4e00-\u9fff]", watched.page.locator("h1").inner_text())
        assert bool(chinese) == (language == "zh")
        assert watched.serious() == [], screen
        too_wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert watched.page.evaluate(too_wide) <= 0, screen
        picture_of(watched, f"{screen.replace('/', '-')}-{language}")


def test_the_first_paint_comes_within_a_second(opened):
    watched = opened()
    watched.go("overview")
    painted = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert watched.page.evaluate(painted) < FIRST_PAINT


def listed(watched: Watched) -> list[str]:
    return watched.page.locator("ol.recommended > li").evaluate_all(
        "rows => rows.map(row => row.dataset.item)"
    )


TIMED_CLICK = """async ([button, before]) => {
    const rows = () => [...document.querySelectorAll("ol.recommended > li")];
    const items = () => rows().map((row) => row.dataset.item).join();
    const started = performance.now();
    button.click();
    while (items() === before && performance.now() - started < 5000) await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""


def test_an_event_clicked_away_moves_the_list_at_once_and_back(opened):
    watched = opened()
    watched.go("person/guest-03")
    before = listed(watched)
    assert len(before) == 10
    button = watched.page.locator("ol.history button").first
    taken = watched.page.evaluate(TIMED_CLICK, [button.element_handle(), ",".join(before)])
    assert taken < ANSWERED
    watched.settle()
    after = listed(watched)
    assert after != before
    expect(watched.page.locator(".move").first).to_be_visible()
    picture_of(watched, "what-if")
    watched.page.locator("section[aria-labelledby=recommended] button", has_text="Back").click()
    expect(watched.page.locator(".move")).to_have_count(0)
    assert listed(watched) == before


def test_an_event_that_is_added_draws_its_like_into_the_list(opened):
    watched = opened()
    watched.go("person/guest-03")
    before = listed(watched)
    for title in ("Celadon cup", "Celadon bowl", "Celadon jug", "Celadon pot"):
        watched.page.get_by_role("combobox", name="Search for an item to add").fill(title)
        watched.page.locator(".find li").first.click()
    watched.settle()
    expect(watched.page.locator(".history .tag")).to_have_count(4)
    celadon = [sum(key.startswith("c") for key in keys) for keys in (before, listed(watched))]
    assert celadon[0] < celadon[1]


def test_every_item_of_the_list_says_why(opened):
    watched = opened()
    watched.go("person/guest-03")
    why = watched.page.locator("ol.recommended details")
    expect(why).to_have_count(10)
    why.first.locator("summary").click()
    expect(why.first.locator("table.shares").first).to_be_visible()
    assert watched.serious() == []


@pytest.mark.parametrize("altered", [False, True], ids=["as it was", "what if"])
def test_a_reason_is_shown_on_the_words_and_the_picture(opened, altered):
    watched = opened()
    watched.go("person/guest-03")
    if altered:
        watched.page.locator("ol.history button").first.click()
        watched.settle()
    row = watched.page.locator("ol.recommended > li").first
    row.locator("summary").click()
    expect(row.locator(".heat img")).to_be_visible()
    assert row.locator(".squares span").count() == 64
    title = row.locator(".item-words a").inner_text()
    marks = row.locator("mark").evaluate_all("marks => marks.map(mark => mark.firstChild.textContent)")
    assert marks == title.split()
    tinted = row.locator(".squares span").evaluate_all(
        "squares => new Set(squares.map(square => getComputedStyle(square).backgroundColor)).size"
    )
    assert tinted > 8
    expect(row.locator(".squares")).to_have_attribute("aria-label", re.compile("picture: what matters most"))
    watched.settle()
    assert watched.serious() == []
    if not altered:
        row.scroll_into_view_if_needed()
        picture_of(watched, "why")


def test_an_item_shows_what_competes_with_it_and_what_goes_with_it(opened):
    watched = opened()
    watched.go("item/dcut")
    near = watched.page.locator("section[aria-labelledby=near] > ul .item-words a")
    after = watched.page.locator("section[aria-labelledby=next] .item-words a")
    expect(after).to_have_count(6)
    competing, going = set(near.all_inner_texts()), set(after.all_inner_texts())
    assert not competing & going


def test_a_new_item_shows_its_place_before_it_is_saved_and_is_there_afterwards(opened, tmp_path):
    picture("Oxblood", "jug", "large").save(tmp_path / "jug.png")
    watched = opened()
    watched.go("new")
    watched.page.get_by_label("Drop a picture here").set_input_files(tmp_path / "jug.png")
    watched.page.get_by_label("title").fill("Oxblood jug, round")
    watched.page.get_by_label("glaze").fill("oxblood")
    watched.page.get_by_label("price").fill("12.5")
    watched.page.get_by_role("button", name="See where it would stand").click()
    section = watched.page.locator("section[aria-labelledby=preview]")
    expect(section.locator(".figures")).to_be_visible()
    assert "Oxblood" in section.locator("ul.plain").inner_text()
    fits = section.locator(".chips a").evaluate_all(
        "links => links.map(link => link.textContent.split(' ')[0])"
    )
    assert sum(int(user[-2:]) % 5 == 3 for user in fits) > len(fits) / 2
    assert watched.serious() == []
    picture_of(watched, "new-item")
    watched.page.get_by_label("Key of the new item").fill("round-jug")
    watched.page.get_by_role("button", name="Save it").click()
    section.get_by_role("link", name="round-jug").click()
    expect(watched.page.get_by_role("heading", name="Oxblood jug, round")).to_be_visible()
    expect(watched.page.locator(".hero img")).to_be_visible()
    watched.settle()


def test_the_list_of_items_is_searched_and_holds_only_rows_in_view(opened):
    watched = opened()
    watched.go("item")
    assert watched.page.locator(".browse li").count() < 40
    watched.page.locator("#browse").fill("celadon")
    expect(watched.page.locator(".browse a").first).to_contain_text("Celadon")
    watched.page.locator(".browse a").first.click()
    expect(watched.page.locator(".hero h2")).to_contain_text("Celadon")
    watched.settle()
    near = watched.page.locator("section[aria-labelledby=near] > ul > li")
    assert near.count() == 12


def test_the_map_is_moved_and_searched_by_keyboard(opened):
    watched = opened()
    watched.go("map")
    state = watched.page.locator("#map-state")
    every = state.inner_text()
    watched.page.locator("canvas").focus()
    for key in ("+", "+", "+", "ArrowLeft", "ArrowDown"):
        watched.page.keyboard.press(key)
    expect(state).not_to_have_text(every)
    watched.page.keyboard.press("0")
    expect(state).to_have_text(every)
    watched.page.get_by_role("combobox").fill("Ivory vase, small")
    expect(watched.page.locator(".find li").first).to_be_visible()
    watched.page.keyboard.press("Enter")
    expect(state).to_contain_text("Ivory vase, small")
    watched.page.locator("canvas").focus()
    watched.page.keyboard.press("Enter")
    expect(watched.page.get_by_role("heading", name="Ivory vase, small")).to_be_visible()
    watched.settle()


def test_the_language_is_switched_and_remembered(opened):
    watched = opened(locale="en-GB")
    watched.go("overview")
    watched.page.get_by_role("button", name="中文").click()
    expect(watched.page.get_by_role("heading", level=1)).to_have_text("概览")
    watched.page.reload()
    expect(watched.page.get_by_role("heading", level=1)).to_have_text("概览")
    watched.settle()


def test_a_person_is_found_and_changed_with_the_keyboard_alone(opened):
    watched = opened()
    watched.go("overview")
    keys = watched.page.keyboard

    def focused() -> str:
        return watched.page.evaluate(
            "() => document.activeElement.getAttribute('aria-label') || "
            "document.activeElement.textContent || document.activeElement.id"
        )

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            keys.press("Tab")
            if re.match(wanted, focused()):
                return
        raise AssertionError(f"{wanted} cannot be reached")

    tab_to("Skip")
    tab_to("Person")
    keys.press("Enter")
    expect(watched.page.get_by_role("heading", level=1)).to_have_text("Person")
    tab_to("person")
    keys.type("guest-07")
    keys.press("Enter")
    expect(watched.page.locator("ol.recommended > li")).to_have_count(10)
    watched.settle()
    before = listed(watched)
    tab_to("Take away")
    keys.press("Space")
    expect(watched.page.locator("h2#recommended")).to_contain_text("if it were so")
    watched.settle()
    assert listed(watched) != before


def test_the_key_is_asked_for_and_forgotten_with_the_tab(run, browser):
    keys = {f"PALATE_{level}_KEY": f"{level.lower()}-pottery" for level in ("READ", "WRITE", "ADMIN")}
    with serving(run, **keys) as origin:
        page = browser.new_context().new_page()
        page.goto(f"{origin}/#/person/guest-03")
        for wrong in ("nothing", "read-pottery"):
            page.get_by_label("Key", exact=True).fill(wrong)
            page.keyboard.press("Enter")
            page.wait_for_load_state("networkidle")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator("ol.recommended > li")).to_have_count(10)
        expect(page.locator("section[aria-labelledby=history]")).to_contain_text("admin key")
        other = page.context.new_page()
        other.goto(f"{origin}/#/person/guest-03")
        other.get_by_label("Key", exact=True).fill("admin-pottery")
        other.keyboard.press("Enter")
        expect(other.locator("ol.history > li")).to_have_count(9)
        page.context.close()


SCROLLED = """async () => {
    const box = document.querySelector(".browse"), started = performance.now();
    box.scrollTop = box.scrollHeight / 2;
    do await new Promise(requestAnimationFrame);
    while (performance.now() - started < 5000 && document.querySelectorAll(".browse a").length < 5);
    return performance.now() - started;
}"""
ZOOMED = """async () => {
    const canvas = document.querySelector("canvas"), times = [];
    for (let step = 0; step < 12; step++) {
        const started = performance.now();
        const key = step % 3 ? "+" : "ArrowLeft";
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        await new Promise(requestAnimationFrame);
        await new Promise((done) => setTimeout(done));
        times.push(performance.now() - started);
    }
    return Math.max(...times);
}"""


IF_IT_WERE = """async (button) => {
    const heading = () => document.querySelector("h2#recommended").textContent;
    const before = heading(), started = performance.now();
    button.click();
    while (heading() === before && performance.now() - started < 5000)
        await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""
OPENED = """async (screen) => {
    const started = performance.now();
    location.hash = "#/" + screen;
    const there = () => document.querySelector("main h1") && document.querySelector("main " + (
        screen === "map" ? "#map-state" : screen.startsWith("person") ? "ol.history > li" : ".browse a"));
    while (!there()?.textContent && performance.now() - started < 5000)
        await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The demonstration's shop after one pass over it; or a whole run of it, which PALATE_DEMO_RUN names."""
    if named := os.environ.get("PALATE_DEMO_RUN"):
        return Path(named)
    folder = tmp_path_factory.mktemp("shop") / "demo"
    one_pass = {"train": {"max_epochs": 1}}
    Recommender(one_pass).fit(read_dataset(sample_path("online_retail")), folder=folder)
    return folder


@pytest.mark.slow
def test_on_the_demonstration_the_page_paints_and_answers_in_time(shop, browser):
    """Of the person with the most events, whose answers take longest."""
    with serving(shop) as origin:
        watched = Watched(browser.new_context().new_page(), origin)
        watched.go("overview")
        painted = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
        took = {"first paint": watched.page.evaluate(painted)}
        for screen in ("item", "map"):
            took[screen] = watched.page.evaluate(OPENED, screen)
            watched.settle()
        took["zoom"] = watched.page.evaluate(ZOOMED)
        user = watched.page.request.get(f"{origin}/v1/users?limit=1").json()["users"][0]["user"]
        took["person"] = watched.page.evaluate(OPENED, f"person/{user}")
        expect(watched.page.locator("ol.recommended details")).to_have_count(10)
        watched.settle()
        for number in range(3):
            button = watched.page.locator("ol.history button").nth(number).element_handle()
            if number:
                watched.page.locator("section[aria-labelledby=recommended] button", has_text="Back").click()
                watched.settle()
            took[f"what if {number + 1}"] = watched.page.evaluate(IF_IT_WERE, button)
            watched.settle()
        print({name: round(milliseconds) for name, milliseconds in took.items()})
        assert took.pop("first paint") < FIRST_PAINT
        assert max(took.values()) < ANSWERED, took
        watched.page.context.close()


@pytest.mark.slow
def test_a_hundred_thousand_items_do_not_slow_the_page_down(tmp_path, browser):
    with serving(warehouse(tmp_path / "warehouse")) as origin:
        watched = Watched(browser.new_context().new_page(), origin)
        watched.go("item")
        expect(watched.page.locator("[role=status]")).to_contain_text("100,000")
        assert watched.page.evaluate(SCROLLED) < ANSWERED
        assert watched.page.locator(".browse li").count() < 40
        watched.page.set_default_timeout(30_000)  # the plane is laid out when it is first asked for
        watched.go("map")
        assert watched.page.evaluate(ZOOMED) < ANSWERED
        watched.page.context.close()
