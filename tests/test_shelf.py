"""Every file on the shelves loads, and names are looked up in the promised order."""

import pytest

from slimsearch import plugins, policy, shelf
from slimsearch.calibration.recipe import read_recipe
from slimsearch.errors import InputError
from slimsearch.policy import Body, Matrix
from slimsearch.searching import space

ROOT = shelf.PACKAGE.parent


def test_every_policy_on_the_shelf_loads():
    names = shelf.names("policies")
    assert set(names) >= {"per_layer", "per_layer_wide", "per_matrix", "uniform"}
    for name in names:
        found = policy.read(shelf.find("policies", name))
        assert found.name == name
        assert found.about
        families = {family: plugins.find("families", family)() for family in found.tables}
        space.check(found, families, 0.5)
        body = Body(tuple(Matrix(f"blocks.{n}.q", 8, 8) for n in range(8)))
        assert space.build(found, families, body, 0.5, "").genes


def test_every_recipe_on_the_shelf_loads():
    names = shelf.names("calibration")
    assert set(names) >= {"demo", "ptb", "wikitext2", "c4"}
    for name in names:
        assert read_recipe(name).about


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    return tmp_path


def test_the_users_own_folder_comes_before_the_packages(here):
    assert shelf.find("policies", "uniform") == ROOT / "policies" / "uniform.toml"
    (here / "policies" / "uniform.toml").write_text("")
    assert shelf.find("policies", "uniform") == here / "policies" / "uniform.toml"


def test_a_path_comes_before_every_name(here):
    (here / "mine.toml").write_text("")
    assert shelf.find("policies", "mine.toml").samefile(here / "mine.toml")
    assert shelf.find("policies", str(here / "mine.toml")) == here / "mine.toml"


def test_an_unknown_name_is_refused_with_the_nearest(here):
    with pytest.raises(InputError, match="Did you mean 'uniform'"):
        shelf.find("policies", "unifrom")
    with pytest.raises(InputError, match=r"no file other/place\.toml"):
        shelf.find("policies", "other/place.toml")
    with pytest.raises(InputError):
        shelf.find("policies", "")


def test_about_of_a_damaged_file(here):
    (here / "policies" / "odd.toml").write_text("about = ")
    assert shelf.about("policies", "odd") == "cannot be read"
    assert shelf.about("policies", "uniform").startswith("Every matrix")
