"""Every pipeline of tests/data/linear, from its ONNX file to what scikit-learn said of every row."""

import json

import cloister
import numpy as np
import pytest
from conftest import DATA, numbers, serving, table

CASES = json.loads((DATA / "linear/cases.json").read_text())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    bundles = [
        cloister.import_model(
            DATA / f"linear/{case['name']}.onnx",
            ranges=numbers(f"linear/{case['dataset']}.csv"),
            name=case["name"],
            precision=1e-2,
        )
        for case in CASES
    ]
    with serving(tmp_path_factory.mktemp("linear"), *bundles) as world, world.connect(connections=1) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_it_agrees_with_scikit_learn(client, case):
    model = client.model(case["name"])
    bound = model.description.bound
    expected = f"linear/{case['name']}.expected.csv"
    inference = model.infer(numbers(f"linear/{case['dataset']}.csv"))
    if case["kind"] == "classifier":
        labels = table(expected)["label"]
        # ONNX has no boolean labels: skl2onnx writes 0 and 1.
        labels = labels == "True" if set(labels) == {"True", "False"} else labels
        equal = inference.labels == labels
        assert equal[inference.certain].all() and inference.certain.mean() > 0.9
        assert model.classes_.dtype.kind == ("U" if labels.dtype.kind == "U" else "i")
        decision = numbers(expected, "decision:")
        assert np.abs(inference.logits - decision).max() <= bound
        if model.description.has_probabilities:
            assert np.abs(inference.probabilities - numbers(expected, "probability:")).max() <= 2 * bound
    else:
        values = numbers(expected, "prediction:")
        found = inference.values.reshape(values.shape)
        # Of a logarithmic link, the bound is on the logarithm.
        error = found - values if np.allclose(inference.logits, found) else np.log(found / values)
        assert np.abs(error).max() <= bound + 1e-12
