"""The public names are exactly these, and naming them costs nothing until they are used."""

import subprocess
import sys

import pytest

import palate

PUBLIC = ["Recommender", "Settings", "__version__", "dataset_from_frames", "errors", "read_dataset"]


def test_the_public_names_are_exactly_these():
    assert sorted(palate.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(palate))


def test_every_public_name_leads_to_the_thing_itself():
    from palate.data.source import dataset_from_frames, read_dataset
    from palate.recommender import Recommender
    from palate.settings import Settings

    assert palate.Recommender is Recommender
    assert palate.Settings is Settings
    assert palate.read_dataset is read_dataset
    assert palate.dataset_from_frames is dataset_from_frames


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        _ = palate.Recomender


@pytest.mark.parametrize("module", ["palate", "palate.cli"])
def test_importing_waits_for_no_heavy_library(module):
    slow = ["torch", "polars", "numpy", "scipy", "sklearn", "matplotlib"]
    code = f"import sys, {module}; print([name for name in {slow} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


WITHOUT = """
import sys

training = "torch lightning_fabric tensorboard scipy sklearn implicit optuna matplotlib jinja2"
sys.modules.update(dict.fromkeys(training.split()))  # whoever imports one of them gets an error
"""


def test_without_the_libraries_of_training_the_face_says_what_to_install():
    code = (
        WITHOUT
        + "import palate\ntry: palate.Recommender\nexcept palate.errors.MissingExtraError as e: print(e)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "This needs torch" in found.stdout
    assert "palate[train]" in found.stdout


@pytest.mark.parametrize(
    "words", [["recommend", "run", "--user", "1"], ["doctor"], ["tune", "x", "--out", "y"]]
)
def test_without_the_libraries_of_training_a_command_says_what_to_install(words):
    code = WITHOUT + f"sys.argv = ['palate', *{words}]\nfrom palate.cli import main\nmain()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    assert "palate[train]" in found.stderr
    assert "Traceback" not in found.stderr
