"""What is written about the project is true: examples run, the tree is the tree, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_CODE = {"log.md"}


def first_example(page: Path) -> str:
    found = re.search(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no example"
    return found[1]


def files_in_tree(page: Path) -> list[str]:
    """Paths of the Python files in the page's tree, which is indented by two spaces a level."""
    tree = re.search(
        r"^```text\n(palate/\n.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert tree, f"{page.name} has no tree"
    paths, folders = [], []
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        if name.endswith("/"):
            folders = [*folders[:depth], name]
        else:
            assert len(line.split()) > 1, f"{name} has no description"
            paths.append("".join(folders[:depth]) + name)
    return paths


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in WITHOUT_CODE], ids=lambda page: page.name)
def test_the_first_example_of_every_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = compile(first_example(page), page.name, "exec")
    exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_tree_names_every_module_once_and_no_other(page):
    package = [*(ROOT / "palate").glob("*.py"), *(ROOT / "palate").glob("*/*.py")]
    modules = [path for path in package if path.stat().st_size]  # an empty __init__.py says nothing
    named = files_in_tree(page)
    assert sorted(named) == sorted(path.relative_to(ROOT).as_posix() for path in modules)


def test_both_readmes_show_the_same_code():
    def plain(page):
        return [re.sub(r"\s*# .*", "", line) for line in first_example(page).splitlines()]

    assert plain(READMES[0]) == plain(READMES[1])


WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    names = re.findall(r"`((?:palate|tests|docs|bench|examples)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page):
    from palate.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r"^palate ([a-z]+)", text, re.MULTILINE)) | set(
        re.findall(r"`palate ([a-z]+)", text)
    )
    assert shown <= known
