"""What an unmodified client of the Open Inference Protocol gets from `cloister gateway`: scikit-learn's own outputs.

    python scoring.py HOST:PORT < cases.json

Each case is {"name": …, "dataset": FILE, "expected": FILE}: a model, its rows and what scikit-learn says of each.
"""

import csv
import json
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])


def table(path: str) -> tuple[list[str], list[list[str]]]:
    with open(path, newline="") as file:
        columns, *rows = csv.reader(file)
    return columns, rows


def one_tensor(X: numpy.ndarray, datatype: str, binary: bool) -> list[triton.InferInput]:
    tensor = triton.InferInput("X", X.shape, datatype)
    tensor.set_data_from_numpy(X, binary_data=binary)
    return [tensor]


def a_tensor_for_each_column(X: numpy.ndarray, names: list[str], binary: bool) -> list[triton.InferInput]:
    tensors = [one_tensor(X[:, [index]], "FP64", binary)[0] for index in range(X.shape[1])]
    for tensor, name in zip(tensors, names):
        tensor._name = name
    return tensors[::-1]


def check(case: dict) -> None:
    X = numpy.array([[float(cell or "nan") for cell in row] for row in table(case["dataset"])[1]])
    columns, rows = table(case["expected"])
    expected = {
        prefix: numpy.array([[float(row[at]) for at, name in enumerate(columns) if name.startswith(prefix)] for row in rows])
        for prefix in ["decision", "probability", "prediction"]
    }
    metadata = client.get_model_metadata(case["name"])
    (given,), declared = metadata["inputs"], {tensor["name"]: tensor for tensor in metadata["outputs"]}
    assert given["datatype"] == "FP64" and given["shape"] == [-1, X.shape[1]], given
    bound, names = metadata["parameters"]["bound"], [feature["name"] for feature in metadata["parameters"]["features"]]

    asked = [triton.InferRequestedOutput(name, binary_data=False) for name in declared]
    requests = [
        (one_tensor(X, "FP64", True), None, bound),
        (one_tensor(X, "FP64", False) if not numpy.isnan(X).any() else one_tensor(X, "FP64", True), asked, bound),
        (a_tensor_for_each_column(X, names, True), None, bound),
        # Half a unit in the last place of every feature is more than the bound.
        (one_tensor(X.astype(numpy.float32), "FP32", True), None, None),
    ]
    for inputs, outputs, within in requests:
        answer = client.infer(case["name"], inputs, outputs=outputs, request_id="scoring-1")
        assert answer.get_response()["id"] == "scoring-1"
        found = {name: answer.as_numpy(name) for name in declared}
        for name, array in found.items():
            assert array.shape == (len(X), *declared[name]["shape"][1:]), (case["name"], name, array.shape)
        tolerance = {"rtol": 0, "atol": within} if within else {"rtol": 1e-3, "atol": 1e-3 * numpy.abs(found["logits"]).max()}
        if "label" in declared:
            exported = {"True": "1", "False": "0"}
            labels = [label.decode() if isinstance(label, bytes) else str(label) for label in found["label"]]
            for label, row, certain in zip(labels, rows, found["certain"]):
                assert label == exported.get(row[0], row[0]) or not certain or not within, (case["name"], label, row)
            numpy.testing.assert_allclose(found["logits"], expected["decision"], **tolerance)
            if "probabilities" in declared:
                numpy.testing.assert_allclose(found["probabilities"], expected["probability"], rtol=0, atol=2 * (within or 1e-2))
        elif within:
            # A logarithmic link makes a relative error of an absolute one.
            numpy.testing.assert_allclose(found["predictions"], expected["prediction"], rtol=2 * within, atol=within)
        else:
            numpy.testing.assert_allclose(found["predictions"], expected["prediction"], rtol=1e-3)


def refused(needle: str, *arguments, **keywords) -> None:
    try:
        client.infer(*arguments, **keywords)
    except InferenceServerException as error:
        assert needle in error.message(), error
    else:
        raise AssertionError(f"answered, where this was expected: {needle}")


cases = json.load(sys.stdin)
assert client.is_server_live() and client.is_server_ready()
server = client.get_server_metadata()
assert server["name"] == "cloister-gateway (SIMULATED)" and "binary_tensor_data" in server["extensions"], server
assert {model["name"] for model in client.get_model_repository_index()} == {case["name"] for case in cases}
for case in cases:
    assert client.is_model_ready(case["name"]) and client.is_model_ready(case["name"], "1")
    check(case)

iris = numpy.array([[5.1, 3.5, 1.4, 0.2]])
assert not client.is_model_ready("iris-logistic", "9") and not client.is_model_ready("nothing")
refused("no model", "nothing", one_tensor(iris, "FP64", True))
refused("version", "iris-logistic", one_tensor(iris, "FP64", True), model_version="9")
refused("the model has 4 columns", "iris-logistic", one_tensor(iris[:, :3].copy(), "FP64", True))
refused("is outside", "iris-logistic", one_tensor(iris + 100, "FP64", True))
refused("is not a number", "iris-logistic", one_tensor(iris * numpy.nan, "FP64", True))
refused("UINT8", "iris-logistic", one_tensor(iris.astype(numpy.uint8), "UINT8", True))
refused("there is no output", "iris-logistic", one_tensor(iris, "FP64", True), outputs=[triton.InferRequestedOutput("score")])
refused("classification", "iris-logistic", one_tensor(iris, "FP64", True), outputs=[triton.InferRequestedOutput("label", class_count=2)])
refused("compressed", "iris-logistic", one_tensor(iris, "FP64", True), request_compression_algorithm="gzip")
print("ok")
