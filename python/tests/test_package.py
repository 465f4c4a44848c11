"""What is written of the package is so: its examples, its README and its types."""

import doctest
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import cloister
import pytest

FOLDER = Path(__file__).resolve().parents[1]
README, CONFIGURATION = FOLDER / "README.md", FOLDER / "pyproject.toml"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def names(client, world, X, y, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_bytes(world.policy.read_bytes())
    return {"cloister": cloister, "client": client, "ENDPOINT": world.endpoint, "X": X, "y": y}


@pytest.mark.filterwarnings("ignore::cloister.SimulatedWarning")
def test_examples_are_true(names):
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    examples = doctest.DocTestFinder(recurse=False).find(cloister, globs=names)
    for name in cloister.__all__:
        examples += doctest.DocTestFinder().find(getattr(cloister, name), name, module=False, globs=names)
    for example in examples:
        runner.run(example)
    tested = {example.name for example in examples if example.examples}
    assert {"cloister", "Client", "Client.evidence", "Model.predict", "Model.infer", "import_model"} <= tested
    assert runner.failures == 0


@pytest.mark.filterwarnings("ignore::cloister.SimulatedWarning")
def test_the_readme_is_true(names):
    results = doctest.testfile(str(README), module_relative=False, globs=names, optionflags=FLAGS)
    assert results.failed == 0 and results.attempted > 10


def test_it_needs_numpy_and_says_that_it_has_types():
    distribution = importlib.metadata.distribution("cloister")
    assert [need for need in distribution.requires or [] if "extra" not in need] == ["numpy>=1.26"]
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    files = {str(file) for file in distribution.files or []}
    assert {"cloister/py.typed", "cloister/_native.pyi", "cloister/_native.abi3.so"} <= files


def test_types_are_those_of_the_code(tmp_path):
    package = Path(cloister.__file__).parent
    environment = os.environ | {"MYPYPATH": str(package.parent), "MYPY_CACHE_DIR": str(tmp_path)}
    for command in [["mypy", "--config-file", CONFIGURATION, "-p", "cloister"], ["mypy.stubtest", "cloister._native"]]:
        run = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
