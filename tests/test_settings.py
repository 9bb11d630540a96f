"""Settings: unknown names are refused, later layers win, files read back, nothing is dead or untold."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from palate.errors import SettingsError
from palate.settings import Settings, read_yaml, write_yaml

ROOT = Path(__file__).parent.parent


def every_field(model=Settings, prefix=""):
    """Dotted name and default of every setting; of a list of models, those of one entry."""
    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            yield from every_field(type(default), f"{prefix}{name}.")
        elif isinstance(default, tuple) and default and isinstance(default[0], BaseModel):
            yield from every_field(type(default[0]), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default


FIELDS = dict(every_field())


def as_written(default) -> str:
    """A default as the page of settings shows it: in YAML's own words, on one line."""
    plain = json.loads(json.dumps(default))
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    return text.strip("'")


def test_the_page_tells_every_setting_with_its_default_and_no_other():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \| \S", page, re.MULTILINE))
    assert rows == {name: as_written(default) for name, default in FIELDS.items()}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_read_somewhere(name):
    sources = [path for path in (ROOT / "palate").rglob("*.py") if path.name != "settings.py"]
    attribute = re.compile(rf"\.{name.rpartition('.')[2]}\b")
    assert any(attribute.search(path.read_text(encoding="utf-8")) for path in sources)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"model": {"widht": 3}}, "'model.widht' is not a setting. Did you mean 'width'?"),
        ({"trian": {}}, "'trian' is not a setting. Did you mean 'train'?"),
        ({"model": {"text": {"filter": 3}}}, "'model.text.filter' is not a setting. Did you mean 'filters'?"),
        ({"tasks": [{"wieght": 1}]}, "Did you mean 'weight'?"),
        ({"train": {"patience": 0}}, "'train.patience' is 0: input should be greater than or equal to 1"),
        ({"model": {"activation": "tanh"}}, "'model.activation' is 'tanh'"),
    ],
)
def test_what_cannot_be_is_refused_in_the_words_of_the_yaml(tree, words):
    with pytest.raises(SettingsError) as raised:
        Settings.build(tree)
    assert words in str(raised.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(SettingsError, match=r"model\.widht.*train\.patience"):
        Settings.build({"model": {"widht": 3}, "train": {"patience": 0}})


def test_later_layers_win_and_leave_the_rest_of_a_section_alone():
    built = Settings.build(
        {"model": {"width": 16, "blocks": 2}, "seed": 1},
        {"model": {"width": 32}},
        assignments=["model.kernel_size=5", "seed=7"],
    )
    assert (built.model.width, built.model.blocks, built.model.kernel_size, built.seed) == (32, 2, 5, 7)
    assert built.model.dropout == Settings().model.dropout
    assert Settings.build({"seed": 1}, assignments=["seed=2", "seed=3"]).seed == 3


def test_layers_are_not_changed_by_building():
    first = {"model": {"width": 16}}
    Settings.build(first, {"model": {"width": 32}}, assignments=["model.blocks=1"])
    assert first == {"model": {"width": 16}}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("evaluate.baselines=[popularity, ease]", ("evaluate", "baselines"), ("popularity", "ease")),
        ("train.target_events=[purchase]", ("train", "target_events"), ("purchase",)),
        ("evaluate.filter_seen=false", ("evaluate", "filter_seen"), False),
        ("train.learning_rate=1.0e-3", ("train", "learning_rate"), 1e-3),
        ("split.horizon_days=null", ("split", "horizon_days"), None),
        ("model.text.filters=8", ("model", "text", "filters"), 8),
        (" model.width =8", ("model", "width"), 8),
    ],
)
def test_an_assignment_holds_a_yaml_value(assignment, path, value):
    found = Settings.build(assignments=[assignment])
    for step in path:
        found = getattr(found, step)
    assert found == value


@pytest.mark.parametrize("assignment", ["model.width", "=3", "", "model.width:3"])
def test_an_assignment_without_name_or_equals_is_refused_with_an_example(assignment):
    with pytest.raises(SettingsError, match=r"wanted section\.field=value"):
        Settings.build(assignments=[assignment])


def test_an_assignment_that_is_not_yaml_is_refused():
    with pytest.raises(SettingsError, match="is not a YAML value"):
        Settings.build(assignments=["model.dilations=[1, 2"])


def test_settings_written_as_yaml_read_back_equal(tmp_path):
    built = Settings.build(
        {
            "data": {"earliest": "2010-12-01", "repeats": "first"},
            "split": {"kind": "temporal", "date": "2011-11-09T12:00:00", "horizon_days": 30},
            "train": {"target_events": ["purchase"]},
            "evaluate": {"baselines": []},
        }
    )
    write_yaml(tmp_path / "settings.yaml", built)
    assert Settings.build(read_yaml(tmp_path / "settings.yaml")) == built


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- 1\n- 2\n", "holds a list; wanted a mapping"),
        ("a: [1\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, words):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(SettingsError, match=words):
        read_yaml(tmp_path / "config.yaml")


def test_a_missing_file_is_named_and_an_empty_one_is_no_settings(tmp_path):
    with pytest.raises(SettingsError, match=r"Cannot read .*gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Settings().model.width = 3
