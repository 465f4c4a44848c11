"""Makes the four tasks on which Cloister is compared with other systems: logistic regressions in float64.

Run it from any folder; it writes its outputs beside itself:

    iris, bc, digits, wide784        the tasks: 4 features and 3 classes, 30 and 2, 64 and 10, 784 and 10
    NAME.onnx                        the LogisticRegression alone, as skl2onnx exports it in float64
    NAME.csv                         the test rows, already standardised or scaled, under the header x0, x1, ...
    wide784.u8                       instead of a csv: 500 rows of 784 bytes, row by row; a feature is its byte / 255
    NAME.expected.csv                scikit-learn's float64 decision_function on exactly these rows, and its label

wide784 is synthetic; its rows are rounded to multiples of 1/255, as an image's would be, so that they fit into bytes.

Requirements, with Python 3.11 (a re-run with these gives the same bytes up to the last digits of the fit; the stored
files are from one thread, OMP_NUM_THREADS=1):

    numpy==2.4.6
    onnx==1.23.2
    onnxruntime==1.32.0
    scikit-learn==1.9.1
    scipy==1.17.1
    skl2onnx==1.20.0
"""

import csv
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).resolve().parent
OPSET = {"": 18, "ai.onnx.ml": 1}


def main():
    make_task("iris", *iris())
    make_task("bc", *breast_cancer())
    make_task("digits", *digits(), max_iter=1000)
    make_task("wide784", *wide(), max_iter=2000)


def iris():
    rows, target = load_iris(return_X_y=True)
    rows = (rows - rows.mean(0)) / rows.std(0, ddof=1)
    return rows, target, rows


def breast_cancer():
    rows, target = load_breast_cancer(return_X_y=True)
    train, test, train_target, _ = train_test_split(rows, target, test_size=0.25, random_state=0)
    mean, deviation = train.mean(0), train.std(0)
    return (train - mean) / deviation, train_target, (test - mean) / deviation


def digits():
    rows, target = load_digits(return_X_y=True)
    train, test, train_target, _ = train_test_split(rows / 16.0, target, test_size=0.2, random_state=0)
    return train, train_target, test


def wide():
    rows, target = make_classification(
        n_samples=2500,
        n_features=784,
        n_informative=100,
        n_redundant=100,
        n_classes=10,
        class_sep=3.0,
        random_state=0,
    )
    rows = (rows - rows.min(0)) / (rows.max(0) - rows.min(0))
    return rows[:2000], target[:2000], rows[2000:]


def make_task(name, train, target, test, max_iter=100):
    model = LogisticRegression(max_iter=max_iter).fit(train, target)
    stored = write_bytes(name, test) if name == "wide784" else write_rows(name, test)
    logits = model.decision_function(stored).reshape(len(stored), -1)
    labels = model.predict(stored)
    write_expected(name, logits, labels)
    check(name, write_onnx(name, model), stored, labels, model.predict_proba(stored))


def write_rows(name, rows):
    header = [f"x{i}" for i in range(rows.shape[1])]
    write_csv(f"{name}.csv", header, ([repr(value) for value in row] for row in rows.tolist()))
    return rows


def write_bytes(name, rows):
    """Returns the rows as a reader of the file will see them."""
    levels = np.rint(rows * 255).astype(np.uint8)
    (FOLDER / f"{name}.u8").write_bytes(levels.tobytes())
    return levels / 255


def write_expected(name, logits, labels):
    header = ["label", *(f"decision:{i}" for i in range(logits.shape[1]))]
    write_csv(f"{name}.expected.csv", header, ([label, *map(repr, row)] for label, row in zip(labels, logits.tolist())))


def write_onnx(name, model):
    # Without a ZipMap: onnxruntime has none for doubles. Without a name no two runs would agree.
    graph = convert_sklearn(
        model,
        name=name,
        initial_types=[("X", DoubleTensorType([None, model.n_features_in_]))],
        target_opset=OPSET,
        options={id(model): {"zipmap": False}},
    )
    # skl2onnx lists the operator sets in the order of a hash that differs from run to run.
    graph.opset_import.sort(key=lambda opset: opset.domain)
    exported = graph.SerializeToString(deterministic=True)
    (FOLDER / f"{name}.onnx").write_bytes(exported)
    return exported


def check(name, exported, rows, labels, probabilities):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    got_labels, got_probabilities = session.run(None, {"X": rows})
    error = np.abs(got_probabilities - probabilities).max()
    if (got_labels != labels).any() or not error <= 1e-9:
        raise SystemExit(f"{name}: the graph disagrees with scikit-learn, by {error}")


def write_csv(name, header, rows):
    with open(FOLDER / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
