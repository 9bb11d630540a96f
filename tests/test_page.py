"""The page in a real browser, on a real server: every screen, both languages, keyboard alone, nothing from outside.

The pictures in the documents are made here: PALATE_SCREENSHOTS=docs/images names the folder they go to.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright

from tests.pottery import picture, trained

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
AXE = Path(__file__).parent / "axe" / "axe.min.js"
KEYS = {"PALATE_READ_KEY": "read-pottery", "PALATE_WRITE_KEY": "write-pottery", "PALATE_ADMIN_KEY": "admin-pottery"}
FIRST_PAINT = 1_000  # milliseconds
ANSWERED = 200
SCREENS = ("overview", "person/guest-03", "item", "item/dcut", "new", "compare", "compare/guest-03", "map")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and a second one that learned from other seeds."""
    folder = tmp_path_factory.mktemp("pottery")
    first = trained(folder / "autumn")
    second = folder / "winter"
    shutil.copytree(first, second)
    return first, second


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()
