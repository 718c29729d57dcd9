"""The rules of the house, checked by reading the code: floors, what an import loads, one meaning for each name."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import fastconv as fc
from fastconv.backends import contract
from fastconv.backends.numpy import NumpyEngine
from fastconv.dispatch import backends

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "fastconv"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: From the top down; a module may import its own floor and those below.
FLOORS = ("public", "dispatch", "planner", "backends", "kernels", "problem")
#: What anybody may import: it imports nothing of ours.
BEDROCK = {"fastconv.version", "fastconv._machine", "fastconv._tiles"}


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    return FLOORS.index(part) if part in FLOORS else 0


def imports(path: pathlib.Path) -> list[str]:
    """Every module of ours that a file imports, at its head or inside a function, by name or by importlib."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return [name for name in found if name.split(".")[0] == "fastconv" and name != "fastconv"]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_only_point_down(path):
    module = module_name(path)
    for imported in imports(path):
        if imported not in BEDROCK and imported.rpartition(".")[0] not in BEDROCK:
            assert floor(imported) >= floor(module), f"{module} imports {imported}, which stands above it"


def test_every_floor_is_there():
    """The rule above would hold of an empty house."""
    for name in FLOORS[1:]:
        assert len(list((PACKAGE / name).glob("*.py"))) > 1, name
    assert any(imports(path) for path in MODULES)


#: Words that had several meanings in the code, or none that a reader of the literature knows, and what to write.
BANNED = {
    "apart": "the stride from one to the next",
    "alike": "equivalent, or equal in what is named",
    "ask asks asking": "prefetch",
    "bundle bundles": "tap group",
    "clips clipped": "skip padding",
    "hop hops": "stride",
    "meet meets met": "a tap reads or is linked to a pixel",
    "piece pieces": "work item, segment or block",
    "place places": "position, offset, pointer or address",
    "room rooms": "workspace or space",
    "spread": "broadcast",
    "weave weaves": "interleave",
    "word words": "operation or primitive",
}
PLAIN_FILES = [
    path
    for folder in (PACKAGE / "planner", PACKAGE / "backends", PACKAGE / "kernels", ROOT / "_cython")
    for path in sorted(folder.rglob("*"))
    if path.suffix in {".py", ".pyx", ".h", ".c"}
]


def banned_words(text: str) -> list[str]:
    """The banned words in comments, docstrings and names, each with what to write."""
    found = set(re.findall(r"[a-z]+", re.sub("in[ _]place", "", text.lower())))
    return [f"{words}: {instead}" for words, instead in BANNED.items() if found & set(words.split())]


@pytest.mark.parametrize("path", PLAIN_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_planner_and_engines_use_standard_terms(path):
    assert not banned_words(path.read_text(encoding="utf-8"))


def test_a_banned_word_would_be_seen():
    """The test above can fail."""
    for line in ("two rows that lie ld apart", "places_table: int", "#define HOP 2"):
        assert banned_words(line), line
    assert not banned_words("it writes in place; the stride is ld; in_place")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


def fresh(code: str, *options: str) -> str:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def loaded_by(package: str) -> set[str]:
    """The modules that importing a package loads."""
    return set(json.loads(fresh(f"import sys, {package}, json; print(json.dumps(sorted(sys.modules)))")))


def test_import_loads_numpy_and_nothing_heavier():
    """Beyond what NumPy itself loads: our own modules and a few small ones of the standard library."""
    with_numpy, with_us = loaded_by("numpy"), loaded_by("fastconv")
    heavy = {name.split(".")[0] for name in with_us - with_numpy} - sys.stdlib_module_names - {"numpy"}
    # the compiled module, which holds OpenMP's limit of threads, brings two empty modules of Cython's
    assert {name for name in heavy if not name.lstrip("_").startswith("cython_")} == {"fastconv"}
    late = ("fastconv.backends.numpy", "fastconv.backends.numba", "fastconv.backends.cython", "fastconv.cli")
    assert not [name for name in with_us if name.startswith((*late, "importlib.metadata"))]
    # each dataclass takes the time of five named tuples to make
    assert "dataclasses" not in with_us - with_numpy


def test_annotations_of_named_tuples_are_evaluated():
    """In what an import loads: `typing.NamedTuple` compiles each annotation that is a string, which takes longer."""
    loaded = loaded_by("fastconv")
    for path in MODULES:
        text = path.read_text()
        if module_name(path) in loaded and "(NamedTuple)" in text:
            assert "from __future__ import annotations" not in text, path


def test_nothing_happens_at_import():
    """No thread, no log handler, no environment variable."""
    code = (
        "import logging, os, threading; before = dict(os.environ); import fastconv; "
        "assert dict(os.environ) == before; assert threading.active_count() == 1; "
        "assert not logging.getLogger().handlers + logging.getLogger('fastconv').handlers; print('quiet')"
    )
    assert fresh(code, "-W", "error").strip() == "quiet"


def test_required_packages_are_numpy_and_numba():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [Requirement(line).name for line in project["dependencies"]]
    assert names == ["numpy", "numba"]


@pytest.mark.parametrize("system", [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")])
def test_every_version_of_python_has_numba_and_wheels(system):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, wheels = settings["project"], settings["tool"]["cibuildwheel"]["build"].split()
    (numba,) = (Requirement(line) for line in project["dependencies"] if line.startswith("numba"))
    versions = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    assert versions[0] == project["requires-python"].removeprefix(">=")
    assert wheels == [f"cp{version.replace('.', '')}-*" for version in versions]
    platform, machine = system
    for version in versions:
        where = {"python_version": version, "sys_platform": platform, "platform_machine": machine}
        assert numba.marker.evaluate(where | {"platform_python_implementation": "CPython"})
        assert not numba.marker.evaluate(where | {"platform_python_implementation": "PyPy"})


NUMBA_INTERNALS = PACKAGE / "backends" / "numba" / "numba_internals.py"
#: Parts of Numba that may change in any version.
INTERNAL = ("numba.core", "numba.np", "numba.misc", "numba.parfors", "numba._", "llvmlite")
#: The documented `numba.types`, by the name of where it lies.
DOCUMENTED = {"numba.core.types"}
#: These look for modules that Numba has loaded, and load none.
BY_NAME = {"fastconv.dispatch.backends": {"numba.core.compiler_lock"}}


def uses_of_numba_internals(module: str, text: str) -> list[str]:
    """Modules and attributes of Numba, beyond its documented interface, that a module imports or names."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith(INTERNAL)]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name.startswith(INTERNAL) and name not in DOCUMENTED]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            found += [node.value] * (node.value.startswith(INTERNAL) and node.value not in BY_NAME.get(module, ()))
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            # in the engine's modules, all objects are ours or Numba's; ours have no private attributes but their own
            is_private = node.attr.startswith("_") and not node.attr.startswith("__") and not name.startswith("self.")
            if name.startswith(INTERNAL) or (is_private and module.startswith("fastconv.backends.numba")):
                found.append(name)
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if path != NUMBA_INTERNALS], ids=module_name)
def test_one_module_relies_on_numbas_internals(path):
    module = module_name(path)
    assert not uses_of_numba_internals(module, path.read_text())


def test_a_use_of_numbas_internals_would_be_seen():
    """The test above can fail."""
    for line in (
        "import numba.core.registry",
        "from numba.core import cgutils",
        "from llvmlite import ir",
        "import numba; numba.core.config.OPT",
        "import importlib; importlib.import_module('numba.np.ufunc.parallel')",
        "dispatcher._cache = None",
    ):
        assert uses_of_numba_internals("fastconv.backends.numba.other", line), line
    assert not uses_of_numba_internals("fastconv.backends.numba.other", "from numba import types; self._own")
    assert uses_of_numba_internals("fastconv.backends.numba.numba_internals", NUMBA_INTERNALS.read_text())


def test_the_versions_of_numba_are_those_that_ci_runs():
    """The line that `.ci/run` reads, and what pip may install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (numba,) = (Requirement(line) for line in project["dependencies"] if line.startswith("numba"))
    pattern = r"^OLDEST, PROVED = \((\d+), (\d+)\), \((\d+), (\d+)\)$"
    (found,) = re.findall(pattern, NUMBA_INTERNALS.read_text(), re.MULTILINE)
    oldest_major, oldest, newest_major, newest = map(int, found)
    assert numba.specifier == SpecifierSet(f">={oldest_major}.{oldest},<{newest_major}.{newest + 1}")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_fast_math(path):
    """fastmath=True breaks NaN and infinity; no engine may ask for it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "fastmath":
            assert not (isinstance(node.value, ast.Constant) and node.value.value is True)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_property_has_a_lock_that_a_forked_child_finds_held(path):
    """`functools.cached_property` has one before Python 3.12; `problem.cached` has none."""
    names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(path.read_text()))}
    assert "cached_property" not in names


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_call_imports_a_codec(path):
    """Any but UTF-8 is imported by its first use. A fork meanwhile leaves a lock that the child waits for."""
    for node in ast.walk(ast.parse(path.read_text())):
        for keyword in getattr(node, "keywords", ()):
            if keyword.arg == "encoding":
                assert ast.literal_eval(keyword.value) == "utf-8", node.lineno


PUBLIC = [
    (f"{module.__name__}.{name}", getattr(module, name))
    for module in (fc, fc.grad, fc.nn)
    for name in sorted(set(getattr(module, "__all__", ())) | {n for n in vars(module) if n.startswith("conv")})
    if callable(getattr(module, name)) and not isinstance(getattr(module, name), type(np.ndarray.shape))
]


@pytest.mark.parametrize(("name", "item"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_docstrings(name, item):
    """What a person calls says what it does, and what is no exception shows an example, which runs as a test."""
    text = inspect.getdoc(item)
    assert text
    if not (inspect.isclass(item) and issubclass(item, BaseException)):
        assert ">>>" in text, f"{name} has no example"


def test_the_engines_keep_the_contract():
    """Each pass has the arguments of the contract, in its order."""
    for name in contract.PASSES:
        expected = inspect.signature(getattr(contract.Engine, name), eval_str=True)
        assert inspect.signature(getattr(NumpyEngine, name), eval_str=True) == expected
    assert isinstance(NumpyEngine(), contract.Engine)
    for name in fc.available_backends():
        engine = backends.loaded(name)
        assert isinstance(engine, contract.TileEngine if contract.is_tiled(engine) else contract.Engine)


def test_the_version_is_in_the_changelog():
    assert f"## {fc.__version__}" in (ROOT / "CHANGELOG.md").read_text()


PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "bench" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def page_name(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_resolve(page):
    """Relative links, and files of ours that are named in code style."""
    text = FENCE.sub("", text_of(page))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page_name(page)} links to {link}"
            assert not anchor or anchor in anchors(target), f"{page_name(page)} links to {link}"
    for named in re.findall(r"`((?:fastconv|tests|bench|docs|_cython)/[\w/.-]+)`", text):
        assert (ROOT / named).exists(), f"{page_name(page)} names {named}"


def test_the_readme_is_read_in_three_minutes():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_examples_run(page, capsys):
    """The Python of a page runs from its first block to its last; one that names a file stands in it word for word."""
    names: dict[str, object] = {"fc": fc, "np": np}
    for block in FENCE.finditer(text_of(page)):
        language, _, file = block["info"].partition(" ")
        if language != "python":
            continue
        if "import torch" in block["text"]:
            pytest.importorskip("torch")
        if file:
            assert block["text"] in text_of(ROOT / file), f"{page_name(page)} quotes {file} as it was"
        elif ">>>" in block["text"]:
            flags = doctest.NORMALIZE_WHITESPACE
            example = doctest.DocTestParser().get_doctest(block["text"], names, page_name(page), None, 0)
            assert not doctest.DocTestRunner(optionflags=flags).run(example).failed, capsys.readouterr().out
        else:
            exec(compile(block["text"], page_name(page), "exec"), names)
