"""The house is kept: small modules, plug-in folders that explain themselves, light imports."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import slimsearch
from slimsearch.plugins import KINDS

PACKAGE = Path(slimsearch.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
POLICIES = sorted((PACKAGE.parent / "policies").glob("*.toml"))
names = [str(file.relative_to(PACKAGE)) for file in MODULES]


def test_some_modules_and_policies_were_found():
    assert len(MODULES) > 60
    assert len(POLICIES) >= 4


@pytest.mark.parametrize("file", MODULES, ids=names)
def test_no_module_is_long(file):
    assert len(file.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", MODULES, ids=names)
def test_every_module_says_what_it_is(file):
    assert (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").strip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plug_in_folder_says_how_to_add_one(kind):
    text = (PACKAGE / kind / "__init__.py").read_text("utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert len(docstring.splitlines()) > 5
    assert "1." in docstring
    assert not ast.parse(text).body[1:], "a plug-in folder's __init__ is a docstring"


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.stem)
def test_every_policy_is_toml_named_after_its_file(file):
    found = tomllib.loads(file.read_text("utf-8"))
    assert found["name"] == file.stem
    assert found["about"]


def test_importing_slimsearch_imports_no_torch():
    code = (
        "import sys, slimsearch\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pymoo', 'typer', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert slimsearch.Settings(ratio=0.4).ratio == 0.4\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_promised_can_be_imported():
    assert {"Result", "Settings", "resume", "search"} <= set(slimsearch.__all__)
    for name in slimsearch.__all__:
        assert getattr(slimsearch, name)
    assert slimsearch.search.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = slimsearch.serach


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("pymoo", {"strategies"}),
        ("rich", {"display.py"}),
        ("typer", {"cli"}),
        ("onnx", {"graphs"}),
        ("onnxruntime", {"runtimes"}),
        ("openvino", {"privacy.py"}),
        ("ray", {"executors"}),
    ],
)
def test_each_heavy_library_has_one_door(library, places):
    users = set()
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found = [node.module or ""]
            if any(name.split(".")[0] == library for name in found):
                users.add(file.relative_to(PACKAGE).parts[0])
    assert users == places


def test_nothing_prints_below_the_display():
    printing = [
        name for name, file in zip(names, MODULES, strict=True)
        if any(
            isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
        )
    ]  # fmt: skip
    assert set(printing) <= {"cli/__init__.py", "demo/train.py", "display.py"}
