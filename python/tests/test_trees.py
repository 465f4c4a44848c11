"""Trees, forests, boosting and networks, and what they and their encrypted selves say of a row in thirty."""

import json
import re

import cloister
import numpy as np
import pytest
from conftest import DATA, numbers, serving, table
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

IRIS = load_iris(as_frame=True)
CANCER = load_breast_cancer(as_frame=True)
DIABETES = load_diabetes(as_frame=True)
SPECIES = IRIS.target_names[IRIS.target]
GAPS = IRIS.data.mask(np.random.default_rng(1).random(IRIS.data.shape) < 0.1)
ROWS = slice(None, None, 30)


def forest():
    return RandomForestClassifier(5, max_depth=3, random_state=0)


# The estimator, a frame, and its targets.
TREES = {
    "tree": (DecisionTreeClassifier(max_depth=4, random_state=0), IRIS.data, SPECIES),
    "boolean-tree": (DecisionTreeClassifier(max_depth=4, random_state=0), CANCER.data, CANCER.target == 1),
    "forest": (forest(), IRIS.data, SPECIES),
    "forest-of-two": (forest(), CANCER.data, CANCER.target),
    "imputed-forest": (make_pipeline(SimpleImputer(), forest()), GAPS, SPECIES),
    "boosting": (GradientBoostingClassifier(n_estimators=5, random_state=0), CANCER.data, CANCER.target),
    "regression": (GradientBoostingRegressor(n_estimators=10, random_state=0), DIABETES.data, DIABETES.target),
}
NETWORKS = {
    "network": (
        make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=3000, random_state=0)),
        IRIS.data,
        SPECIES,
    ),
}
CASES = TREES | NETWORKS

# What onnxmltools exported of XGBoost and LightGBM.
EXPORTED = [
    case
    for case in json.loads((DATA / "trees/cases.json").read_text())
    if case["name"] in ("iris-xgb", "bc-xgb", "diabetes-xgb", "wine-lgbm", "cancer-lgbm", "diabetes-lgbm")
]


@pytest.fixture(scope="module")
def bundles():
    bundles = {}
    for name, (estimator, rows, target) in CASES.items():
        estimator.fit(rows, target)
        bundles[name] = cloister.import_model(estimator, ranges=rows, name=name, public_thresholds=name in TREES)
    return bundles


@pytest.fixture(scope="module")
def client(tmp_path_factory, bundles):
    folder = tmp_path_factory.mktemp("trees")
    with serving(folder, *bundles.values()) as world, world.connect(connections=1) as client:
        yield client


@pytest.mark.parametrize("name", TREES)
def test_trees_with_public_thresholds_are_the_estimator(client, name):
    estimator, rows, _ = TREES[name]
    rows = rows[ROWS]
    model, expected = client.model(name), estimator.predict(rows)
    inference, bound = model.infer(rows), model.description.bound
    assert list(model.feature_names_in_) == list(estimator.feature_names_in_)
    if name == "regression":
        assert inference.values.shape == expected.shape and np.abs(inference.values - expected).max() <= bound
        return
    assert (inference.labels == expected)[inference.certain].all() and inference.certain.mean() > 0.9
    assert (model.classes_ == estimator.classes_).all()
    probabilities = estimator.predict_proba(rows)
    assert inference.probabilities.shape == probabilities.shape
    assert np.abs(inference.probabilities - probabilities).max() <= bound
    if hasattr(estimator, "decision_function"):
        assert np.abs(inference.logits[:, 0] - estimator.decision_function(rows)).max() <= bound


def test_values_are_compared_as_scikit_learn_compares_them(tmp_path):
    """In float32, where the value is that of the threshold; in float64 it is above it."""
    rows = np.array([[2.58], [2.60], [2.64], [2.70]])
    estimator = DecisionTreeClassifier().fit(rows, [0, 0, 1, 1])
    bundle = cloister.import_model(estimator, ranges=rows, name="near", public_thresholds=True)
    value = np.array([[2.62]])
    assert value > np.float32(estimator.tree_.threshold[0]), "the test is of another value"
    with serving(tmp_path, bundle) as world, world.connect(connections=1) as client:
        assert client.predict(value, "near") == estimator.predict(value) == 0


def test_networks_are_the_estimator_but_for_what_bits_change(client):
    estimator, rows, _ = NETWORKS["network"]
    rows = rows[ROWS]
    inference = client.model("network").infer(rows)
    assert (inference.labels == estimator.predict(rows)).all()
    assert np.abs(inference.probabilities - estimator.predict_proba(rows)).max() < 0.1


def test_the_methods_are_those_that_the_model_has(client):
    row = IRIS.data[:1]
    tree, network = client.model("tree"), client.model("network")
    assert tree.predict(row) == network.predict(row) == "setosa"
    assert (tree.predict_proba(row).round(2) == [[1, 0, 0]]).all() and tree.certain(row).all()
    assert network.decision_function(row).shape == (1, 3)
    with pytest.raises(cloister.NotOffered, match="no decision_function: its logits are probabilities"):
        tree.decision_function(row)
    with pytest.raises(cloister.NotOffered, match="no decision_function: it is a regression"):
        client.model("regression").decision_function(DIABETES.data[:1])


def test_the_report_says_what_bits_change(bundles):
    told = r"quantisation +\d+ bits a row; of 150 rows of the data, 0 have another label, and no logit moves "
    hidden = cloister.import_model(TREES["forest"][0], ranges=IRIS.data)
    assert re.search(told, hidden.report) and re.search(told, bundles["network"].report)
    for name in TREES:
        assert bundles[name].report.count("no logit moves by more than 0.00e0\n") == 1
    assert "rows of the data, no logit moves" in bundles["regression"].report
    assert bundles["forest"].description.request_bytes < hidden.description.request_bytes


def test_of_rows_the_first_say_how_many_bits_there_are():
    fitted = forest().fit(IRIS.data, SPECIES)
    many = cloister.import_model(fitted, ranges=np.tile(IRIS.data.to_numpy(), (20, 1)))
    assert " of 2000 rows of the data, " in many.report
    # A row with a value that is missing, and not filled in, says nothing.
    gaps = cloister.import_model(fitted, ranges=GAPS)
    assert f" of {len(GAPS.dropna())} rows of the data, " in gaps.report
    scaled = make_pipeline(StandardScaler(), forest()).fit(IRIS.data, SPECIES)
    assert " of 500 rows all over the ranges, " in cloister.import_model(scaled).report


def test_a_network_has_no_thresholds():
    estimator, rows, target = NETWORKS["network"]
    with pytest.raises(cloister.BadInput, match="no thresholds") as caught:
        cloister.import_model(estimator.fit(rows, target), ranges=rows, public_thresholds=True)
    assert caught.value.code == "no_thresholds"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    bundles = [
        cloister.import_model(
            DATA / f"trees/{case['name']}.onnx",
            ranges=np.vstack([numbers(case["train"]), numbers(case["rows"])]),
            name=case["name"],
            precision=1e-2,
            public_thresholds=True,
        )
        for case in EXPORTED
    ]
    with serving(tmp_path_factory.mktemp("exported"), *bundles) as world, world.connect(connections=1) as client:
        yield client


@pytest.mark.parametrize("case", EXPORTED, ids=lambda case: case["name"])
def test_what_onnxmltools_exports_agrees_with_xgboost_and_lightgbm(exported, case):
    model = exported.model(case["name"])
    expected, bound = f"trees/{case['name']}.expected.csv", model.description.bound
    inference = model.infer(numbers(case["rows"])[ROWS])
    if case["kind"] == "regressor":
        assert np.abs(inference.values - numbers(expected, "prediction:")[ROWS, 0]).max() <= bound
        return
    assert (inference.labels == table(expected)["label"][ROWS])[inference.certain].all()
    assert np.abs(inference.logits - numbers(expected, "decision:")[ROWS]).max() <= bound
    assert np.abs(inference.probabilities - numbers(expected, "probability:")[ROWS]).max() <= bound


def test_an_estimator_that_is_not_of_scikit_learn_has_to_be_exported():
    class XGBClassifier(DecisionTreeClassifier):
        """As foreign to skl2onnx as XGBoost's."""

    with pytest.raises(cloister.BadInput, match="XGBClassifier cannot be exported by skl2onnx: Unable") as caught:
        cloister.import_model(XGBClassifier().fit(IRIS.data, SPECIES), ranges=IRIS.data)
    assert caught.value.code == "not_exported" and "what onnxmltools exports" in caught.value.remedy
