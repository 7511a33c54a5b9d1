"""Plug-ins are found as files, without being imported."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from slimsearch import contracts, plugins
from slimsearch.errors import SettingsError


def test_every_kind_has_some_and_each_is_of_its_kind():
    assert set(plugins.KINDS) == set(contracts.OF_KIND)
    for kind in plugins.KINDS:
        names = plugins.names(kind)
        assert names, kind
        assert names == sorted(names)
        for name in names:
            assert issubclass(plugins.find(kind, name), contracts.OF_KIND[kind])
            assert plugins.about(kind, name), f"{kind}/{name} has no docstring"


def test_names_import_nothing():
    code = (
        "import sys\nfrom slimsearch import plugins\n"
        "found = [(k, n, plugins.about(k, n)) for k in plugins.KINDS for n in plugins.names(k)]\n"
        "assert len(found) > 10\nprint([m for m in sys.modules if m in ('torch', 'pymoo')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [("solvers", "sparsgpt", "'sparsegpt'"), ("strategies", "genetics", "'genetic'"),
     ("tasks", "__init__", "Known:"), ("solvers", "../vlm", "Known:"), ("solvers", "", "Known:")],
)  # fmt: skip
def test_an_unknown_name_is_refused(kind, name, hint):
    with pytest.raises(SettingsError, match=f"There is no '{name}' in {kind}") as caught:
        plugins.find(kind, name)
    assert hint in str(caught.value)


def test_an_unknown_kind_is_refused():
    with pytest.raises(SettingsError, match="Did you mean 'solvers'"):
        plugins.names("solver")


def test_outsiders_come_by_entry_point(monkeypatch):
    point = EntryPoint("mine", "slimsearch.solvers.wanda:Wanda", "slimsearch.solvers")
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [point] if group == "slimsearch.solvers" else []
    )
    assert "mine" in plugins.names("solvers")
    assert "mine" not in plugins.names("tasks")
    assert plugins.find("solvers", "mine").__name__ == "Wanda"
    assert "slimsearch.solvers.wanda" in plugins.about("solvers", "mine")
