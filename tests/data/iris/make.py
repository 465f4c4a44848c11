"""Makes the Iris model and the numbers that the tests hold Cloister to.

Run it from any folder; it writes its outputs beside itself:

    iris.onnx     StandardScaler + LogisticRegression in float32, as skl2onnx exports them
    iris.csv      the 150 rows: four features with scikit-learn's names, and the species
    expected.csv  scikit-learn's float64 decision_function, one column per class at full precision, and its label

Requirements, with Python 3.11 (a re-run with these gives the same bytes up to the last digits of the fit):

    numpy==2.4.6
    onnx==1.23.2
    scikit-learn==1.9.1
    scipy==1.17.1
    skl2onnx==1.20.0
"""

import csv
from pathlib import Path

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDER = Path(__file__).resolve().parent
SEED = 20261122
OPSET = {"": 18, "ai.onnx.ml": 1}


def main():
    iris = load_iris()
    species = iris.target_names[iris.target]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(random_state=SEED)).fit(iris.data, species)

    write_onnx(pipeline, features=iris.data.shape[1])
    write_csv("iris.csv", [*iris.feature_names, "species"], zip(iris.data.tolist(), species))
    logits = pipeline.decision_function(iris.data).tolist()
    write_csv("expected.csv", [*pipeline.classes_, "label"], zip(logits, pipeline.predict(iris.data)))


def write_onnx(pipeline, features):
    # Without a name the graph gets a random one, and no two runs would agree.
    model = convert_sklearn(
        pipeline, name="iris", initial_types=[("X", FloatTensorType([None, features]))], target_opset=OPSET
    )
    (FOLDER / "iris.onnx").write_bytes(model.SerializeToString(deterministic=True))


def write_csv(name, header, rows):
    with open(FOLDER / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([*map(repr, numbers), text] for numbers, text in rows)


if __name__ == "__main__":
    main()
