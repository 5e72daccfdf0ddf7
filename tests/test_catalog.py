from importlib.metadata import EntryPoint

import pytest

from medical_vqa import registry
from medical_vqa.data.formats.slake import Slake
from medical_vqa.errors import ConfigError


def test_built_in_names_are_found():
    assert registry.find("datasets", "slake") is Slake
    assert set(registry.names("models")) >= {"compact", "question-only", "majority"}


@pytest.mark.parametrize("kind", ["datasets", "models"])
def test_every_built_in_name_can_be_imported(kind):
    assert all(isinstance(registry.find(kind, name), type) for name in registry.names(kind))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="unknown dataset 'slak'; did you mean 'slake'"):
        registry.find("datasets", "slak")


def test_other_packages_add_names_and_cannot_replace_ours(monkeypatch):
    points = [
        EntryPoint("mine", "medical_vqa.data.formats.vqa_rad:VqaRad", "medical_vqa.datasets"),
        EntryPoint("slake", "json:loads", "medical_vqa.datasets"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group.endswith("datasets") else [])
    assert registry.find("datasets", "mine").__name__ == "VqaRad"
    assert registry.find("datasets", "slake") is Slake
