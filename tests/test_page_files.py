"""The built page belongs to its source, and asks nobody but its own server."""

import hashlib
import json
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from palate.serve.files import page_router

ROOT = Path(__file__).parent.parent
SOURCE, BUILT = ROOT / "page", ROOT / "palate" / "serve" / "page"
OTHER_FILES = {"package.json", ".gitignore"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_built_files_belong_to_the_source():
    listed = json.loads((BUILT / "built.json").read_text())
    there = {
        str(path.relative_to(SOURCE)): digest(path)
        for path in [*SOURCE.glob("*.*"), *(SOURCE / "src").rglob("*.*")]
        if path.is_file() and path.name not in OTHER_FILES
    }
    assert there == listed["sources"], (
        "The page's source has changed: run make page and commit what it builds."
    )
    built = {path.name: digest(path) for path in BUILT.iterdir() if path.name != "built.json"}
    assert built == listed["built"], "A built file was changed by hand: change page/ and run make page."


def test_both_languages_say_the_same_things():
    words = (SOURCE / "src" / "words.ts").read_text(encoding="utf-8")
    english, chinese = words.split("const zh:")
    gaps = [
        {
            name: set(re.findall(r"\{(\w+)\}", said))
            for name, said in re.findall(r'^  (\w+): "(.*)",$', part, re.MULTILINE)
        }
        for part in (english, chinese.split("export type Language")[0])
    ]
    assert len(gaps[0]) > 50
    assert gaps[0] == gaps[1]


def test_the_page_names_no_other_host():
    for path in BUILT.iterdir():
        hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text(encoding="utf-8")))
        assert hosts <= {"www.w3.org"}, path.name  # namespaces of SVG, which nobody asks


def test_the_files_are_served_under_a_policy_that_lets_nothing_else_in():
    app = FastAPI()
    app.include_router(page_router())
    client = TestClient(app)
    for path, kind in (("/", "html"), ("/page.js", "javascript"), ("/page.css", "css")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in client.get("/").text
