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
