"""A simulated enclave behind a proxy, both separate processes, and the data of tests/data.

`CLOISTER_TEST_ENCLAVE` and `CLOISTER_TEST_PROXY` name the programs; tests/tests/python.rs builds them.
"""

import contextlib
import csv
import json
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cloister
import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[2] / "tests/data"


@dataclass
class World:
    """A service that runs."""

    endpoint: str
    policy: Path
    gateway: str
    end: Callable[[], None]

    def connect(self, **options) -> cloister.Client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cloister.SimulatedWarning)
            return cloister.Client(self.endpoint, **{"policy": self.policy, **options})

    def policy_with(self, *changes: tuple[str, str]) -> Path:
        """A policy that differs."""
        text = self.policy.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        changed = self.policy.with_name("changed.toml")
        changed.write_text(text)
        return changed


def start(program: str, *arguments: object) -> tuple[subprocess.Popen, dict[str, str]]:
    """A program, and where it says that it listens."""
    process = subprocess.Popen(
        [os.environ[program], *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    first = process.stdout.readline().strip()
    assert first, f"{program} has ended"
    places = first.removeprefix("listening on ").split(", ")
    return process, {place.rpartition(" ")[0]: place.rpartition(" ")[2].removeprefix("tcp:") for place in places}


@contextlib.contextmanager
def serving(
    folder: Path, *bundles: cloister.Bundle, gateway: bool = False, settings: dict | None = None
) -> Iterator[World]:
    """Serves these models."""
    files = [bundle.save(folder / f"{bundle.name}@{bundle.version}.cloister") for bundle in bundles]
    local = "tcp:127.0.0.1:0"
    options = ["--plain", local] if gateway else []
    if settings:
        (folder / "settings.json").write_text(json.dumps(settings))
        options += ["--settings", folder / "settings.json"]
    with contextlib.ExitStack() as running:
        run = lambda *command: running.enter_context(_killed(*start(*command)))  # noqa: E731
        authority = ["--authority", folder / "authority", "--listen", local]
        enclave = run("CLOISTER_TEST_ENCLAVE", *authority, *options, "--model", *files)
        proxy = run("CLOISTER_TEST_PROXY", "serve", "--listen", local, "--enclave", f"tcp:{enclave['']}")
        http = {"http": ""}
        if gateway:
            http = run("CLOISTER_TEST_PROXY", "serve", "--http", local, "--plain-enclave", f"tcp:{enclave['plain']}")
        yield World(f"https://{proxy['']}", folder / "authority/policy.toml", f"http://{http['http']}", running.close)


@contextlib.contextmanager
def _killed(process: subprocess.Popen, places: dict[str, str]) -> Iterator[dict[str, str]]:
    with process:
        try:
            yield places
        finally:
            process.kill()


def table(name: str) -> dict[str, np.ndarray]:
    """The columns of a file of tests/data: numbers, or texts."""
    with (DATA / name).open(newline="") as file:
        header, *rows = csv.reader(file)
    columns = {}
    for column, cells in zip(header, zip(*rows, strict=True), strict=True):
        try:
            columns[column] = np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            columns[column] = np.array(cells)
    return columns


def numbers(name: str, prefix: str = "") -> np.ndarray:
    """The numeric columns of such a file whose names begin so."""
    columns = table(name)
    return np.column_stack([c for key, c in columns.items() if key.startswith(prefix) and c.dtype == np.float64])


@pytest.fixture(scope="session")
def X() -> np.ndarray:
    return numbers("iris/iris.csv")


@pytest.fixture(scope="session")
def y() -> np.ndarray:
    return table("iris/iris.csv")["species"]


@pytest.fixture(scope="session")
def iris() -> cloister.Bundle:
    pandas = pytest.importorskip("pandas")
    ranges = pandas.read_csv(DATA / "iris/iris.csv")
    return cloister.import_model(DATA / "iris/iris.onnx", ranges=ranges, name="iris")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, iris: cloister.Bundle) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("iris"), iris) as world:
        yield world


@pytest.fixture
def client(world: World) -> Iterator[cloister.Client]:
    with world.connect() as client:
        yield client
