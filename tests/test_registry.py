from importlib.metadata import EntryPoint

import pytest

from medical_vqa import registry
from medical_vqa.config import ModelOptions
from medical_vqa.data.formats.slake import Slake
from medical_vqa.deploying.render import complete_values, render
from medical_vqa.errors import ConfigError
from medical_vqa.models.base import ModelFamily
from medical_vqa.schema.bundle_card import BundleCard


class Package:
    """Stands for the installed distribution of another package."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def declare(monkeypatch):
    """Entry points as other packages would declare them: ``declare("models", "mine", "module:Class")``."""
    points: dict[str, dict[str, tuple[EntryPoint, ...]]] = {}

    def add(group: str, name: str, target: str, package: str = "their-package") -> None:
        point = EntryPoint(name, target, f"medical_vqa.{group}")
        vars(point).update(dist=Package(package))
        known = points.setdefault(group, {})
        known[name] = (*known.get(name, ()), point)

    monkeypatch.setattr(registry, "_entry_points", lambda group: points.get(group, {}))
    return add


def test_built_in_names_are_found():
    assert registry.find("datasets", "slake") is Slake
    assert set(registry.names("models")) >= {"compact", "question-only", "majority"}


@pytest.mark.parametrize("group", list(registry.GROUPS))
def test_every_built_in_name_can_be_imported_and_has_what_its_group_requires(group):
    contents = registry.GROUPS[group]
    for name in contents.built_in:
        entry = registry.find(group, name)
        if group == "image_stores":  # what they construct is tested with the stores
            entry = getattr(entry, "__self__", entry)
        elif contents.constructed:
            entry = registry.create(group, name)
        assert all(hasattr(entry, attribute) for attribute in contents.required)


@pytest.mark.parametrize("name", registry.GROUPS["models"].built_in)
def test_every_family_is_called_what_the_registry_calls_it_and_keeps_what_it_promises(name):
    family = registry.find("models", name)
    assert family.family == name
    assert issubclass(family, ModelFamily)
    assert issubclass(family.Options, ModelOptions)
    assert issubclass(family.model_class(), family)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="unknown dataset 'slak'; did you mean 'slake'"):
        registry.find("datasets", "slak")


def test_other_packages_add_names(declare):
    declare("datasets", "mine", "medical_vqa.data.formats.vqa_rad:VqaRad")
    assert "mine" in registry.names("datasets")
    assert registry.find("datasets", "mine").__name__ == "VqaRad"


def test_other_packages_cannot_replace_a_built_in_name(declare):
    declare("datasets", "slake", "json:loads")
    with pytest.warns(UserWarning, match="their-package also declares a dataset 'slake'; the one of medical-vqa is"):
        assert registry.find("datasets", "slake") is Slake


def test_a_name_that_two_packages_declare_is_refused(declare):
    declare("datasets", "mine", "medical_vqa.data.formats.vqa_rad:VqaRad", "one")
    declare("datasets", "mine", "medical_vqa.data.formats.slake:Slake", "two")
    with pytest.raises(ConfigError, match="one, two each declare a dataset 'mine'; uninstall all but one"):
        registry.find("datasets", "mine")


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("no_such_module:Mine", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("medical_vqa.data.formats.slake:NoSuchClass", "AttributeError: .*NoSuchClass"),
    ],
)
def test_an_entry_point_that_cannot_be_imported_names_package_and_cause(declare, target, cause):
    declare("datasets", "mine", target)
    with pytest.raises(ConfigError, match=rf"dataset 'mine' of the package their-package cannot be imported \({cause}"):
        registry.find("datasets", "mine")


def test_an_entry_that_lacks_something_says_what(declare):
    declare("models", "mine", "medical_vqa.data.formats.slake:Slake")
    with pytest.raises(ConfigError, match=r"family 'mine' of the package their-package lacks family, Options"):
        registry.find("models", "mine")


def test_a_dataset_that_lacks_something_says_what(declare):
    declare("datasets", "mine", "medical_vqa.models.baselines:Majority")
    with pytest.raises(ConfigError, match=r"the dataset 'mine' \(.*\) cannot be constructed"):
        registry.create("datasets", "mine")
    declare("datasets", "bare", "collections:Counter")
    with pytest.raises(ConfigError, match=r"the dataset 'bare' \(collections:Counter\) lacks card, read, bundled"):
        registry.create("datasets", "bare")


def test_an_entry_that_names_itself_otherwise_is_refused(declare):
    declare("datasets", "mine", "medical_vqa.data.formats.vqa_rad:VqaRad")
    with pytest.raises(ConfigError, match=r"the dataset 'mine' \(.*\) names itself 'vqa-rad' in card.name; give both"):
        registry.create("datasets", "mine")
    declare("models", "mine", "medical_vqa.models.baselines:Majority")
    with pytest.raises(ConfigError, match="of the package their-package names itself 'majority' in family; give both"):
        registry.find("models", "mine")


class Theirs(ModelFamily):
    """A family of another package."""

    family = "theirs"


def test_a_family_of_another_package_is_not_deployed_without_it(declare):
    declare("models", "theirs", f"{__name__}:Theirs")
    assert registry.package_of("models", "theirs") == "their-package"
    assert registry.package_of("models", "compact") is None
    card = BundleCard(family="theirs", name="scans")
    with pytest.raises(ConfigError, match="the containers install medical-vqa alone and theirs is a family of their-p"):
        render("compose", card, values=complete_values("compose", {}), wheel=None)


def test_a_family_that_lacks_a_method_says_which_capability_promised_it():
    class Mine(ModelFamily):
        family = "mine"
        trainable = True
        counted = True

    with pytest.raises(ConfigError, match=r"'mine' \(.*Mine\) lacks load, save, answer, fit, which its capabilities"):
        Mine.model_class()
