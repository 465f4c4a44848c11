"""Estimators that are fitted here, and what they and their encrypted selves say: values, shapes and types."""

import cloister
import numpy as np
import pandas as pd
import pytest
from conftest import serving
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_linnerud
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

IRIS = load_iris(as_frame=True)
CANCER = load_breast_cancer(as_frame=True)
DIABETES = load_diabetes(as_frame=True)
LINNERUD = load_linnerud(as_frame=True)
SPECIES = IRIS.target_names[IRIS.target]
GAPS = IRIS.data.mask(np.random.default_rng(1).random(IRIS.data.shape) < 0.1)


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def ridge_classifier():
    return make_pipeline(StandardScaler(), RidgeClassifier())


GROUPS = ColumnTransformer(
    [("s", StandardScaler(), list(IRIS.data.columns[:2])), ("m", MinMaxScaler(), list(IRIS.data.columns[2:]))]
)

# The estimator, a frame, and its targets.
CASES = {
    "texts": (logistic(), IRIS.data, SPECIES),
    "objects": (logistic(), IRIS.data, pd.Series(SPECIES, dtype=object)),
    "integers": (logistic(), IRIS.data, IRIS.target),
    "odd-integers": (logistic(), IRIS.data, 7 * IRIS.target - 3),
    "booleans": (logistic(), CANCER.data, CANCER.target == 1),
    "two-texts": (logistic(), CANCER.data, CANCER.target_names[CANCER.target]),
    "bare": (LogisticRegression(max_iter=5000), IRIS.data, SPECIES),
    "one-vs-rest": (OneVsRestClassifier(LogisticRegression(max_iter=1000)), IRIS.data, SPECIES),
    "lda": (LinearDiscriminantAnalysis(), IRIS.data, IRIS.target),
    "svc": (make_pipeline(StandardScaler(), LinearSVC()), IRIS.data, SPECIES),
    "boolean-svc": (make_pipeline(StandardScaler(), LinearSVC()), CANCER.data, CANCER.target == 1),
    "ridge-classifier": (ridge_classifier(), CANCER.data, CANCER.target),
    "search": (GridSearchCV(ridge_classifier(), {"ridgeclassifier__alpha": [1, 2]}), IRIS.data, SPECIES),
    "search-in-pipeline": (
        make_pipeline(StandardScaler(), GridSearchCV(RidgeClassifier(), {"alpha": [1, 2]})),
        CANCER.data,
        CANCER.target == 1,
    ),
    "perceptron": (make_pipeline(MinMaxScaler(), Perceptron()), IRIS.data, SPECIES),
    "sgd": (make_pipeline(MinMaxScaler(), SGDClassifier(random_state=0)), CANCER.data, CANCER.target),
    "columns": (make_pipeline(GROUPS, LogisticRegression(max_iter=1000)), IRIS.data, SPECIES),
    "imputed": (make_pipeline(SimpleImputer(), *logistic()), GAPS, SPECIES),
    "values": (LinearRegression(), DIABETES.data, DIABETES.target),
    "several-values": (make_pipeline(StandardScaler(), Ridge()), LINNERUD.data, LINNERUD.target),
    "counts": (make_pipeline(StandardScaler(), PoissonRegressor()), DIABETES.data, DIABETES.target),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    bundles = []
    for name, (estimator, rows, target) in CASES.items():
        bundles.append(cloister.import_model(estimator.fit(rows, target), ranges=rows, name=name))
    with serving(tmp_path_factory.mktemp("estimators"), *bundles) as world, world.connect(connections=1) as client:
        yield client


@pytest.mark.parametrize("name", CASES)
def test_the_encrypted_model_is_the_estimator(client, name):
    estimator, rows, _ = CASES[name]
    model, expected = client.model(name), estimator.predict(rows)
    inference, bound = model.infer(rows), model.description.bound
    predicted = model.predict(rows)
    assert predicted.shape == expected.shape
    assert list(model.feature_names_in_) == list(estimator.feature_names_in_)
    assert model.n_features_in_ == estimator.n_features_in_
    if not hasattr(estimator, "classes_"):
        relative = np.abs(expected) if name == "counts" else 1.0
        assert (np.abs(predicted - expected) <= relative * (np.expm1(bound) + 1e-9)).all()
        assert predicted.dtype == np.float64 and inference.labels is None
        return
    assert (predicted == expected)[inference.certain].all() and inference.certain.mean() > 0.95
    # scikit-learn keeps the objects that pandas has for texts.
    assert predicted.dtype == (expected.dtype if expected.dtype != object else np.array(expected.tolist()).dtype)
    assert (model.classes_ == estimator.classes_).all()
    decision = estimator.decision_function(rows)
    found = model.decision_function(rows)
    assert found.shape == decision.shape and np.abs(found - decision).max() <= bound
    if hasattr(estimator, "predict_proba"):
        probabilities = estimator.predict_proba(rows)
        found = model.predict_proba(rows)
        assert found.shape == probabilities.shape and np.abs(found - probabilities).max() <= 2 * bound
        assert found.dtype == np.float64


def test_what_a_model_does_not_have_is_no_attribute_of_it(client):
    for name, method in [("svc", "predict_proba"), ("values", "predict_proba"), ("values", "decision_function")]:
        with pytest.raises(AttributeError, match="has no") as caught:
            getattr(client.model(name), method)(CASES[name][1])
        assert isinstance(caught.value, cloister.NotOffered)
    assert not hasattr(client.model("values"), "classes_")


def test_missing_values_are_filled_in_only_where_the_model_does(client):
    assert client.model("imputed").description.features[0].imputed
    with pytest.raises(cloister.BadInput, match="NaN is not a number") as caught:
        client.model("texts").predict(GAPS)
    assert caught.value.code == "not_finite"


def test_of_several_models_one_has_to_be_named(client):
    with pytest.raises(cloister.BadInput, match="'texts', ") as caught:
        client.predict(IRIS.data)
    assert caught.value.code == "no_model"
    assert (client.predict(IRIS.data, "texts") == CASES["texts"][0].predict(IRIS.data)).all()


def test_what_is_no_supported_model_is_refused_with_a_reason(tmp_path):
    from sklearn.svm import SVC

    with pytest.raises(cloister.BadInput, match="SVMClassifier"):
        cloister.import_model(SVC(kernel="rbf").fit(IRIS.data, SPECIES), ranges=IRIS.data)
    with pytest.raises(cloister.BadInput, match="LogisticRegression is not fitted"):
        cloister.import_model(LogisticRegression())
    fitted = LogisticRegression(max_iter=5000).fit(IRIS.data, SPECIES)
    with pytest.raises(cloister.BadInput, match="no ranges are given"):
        cloister.import_model(fitted)
    with pytest.raises(cloister.BadInput, match="has no column 'petal length"):
        cloister.import_model(fitted, ranges=IRIS.data[IRIS.data.columns[:2]])
    with pytest.raises(cloister.BadInput, match="2 columns, the model 4"):
        cloister.import_model(fitted, ranges=IRIS.data.to_numpy()[:, :2])
    bundle = cloister.import_model(fitted, ranges=IRIS.data, precision=1e-5, out=tmp_path / "small.cloister")
    assert bundle.name == "small" and bundle.bound <= 1e-5 and "self-check" in bundle.report
    assert (tmp_path / "small.cloister").read_bytes() == bytes(bundle)


def test_what_skl2onnx_does_not_export_is_refused_with_a_reason():
    texts = IRIS.data.assign(species=SPECIES)
    encoder = ColumnTransformer([("t", OneHotEncoder(), ["species"])], remainder="passthrough")
    encoded = make_pipeline(encoder, LogisticRegression(max_iter=1000)).fit(texts, SPECIES)
    transformed = TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)
    transformed.fit(DIABETES.data, DIABETES.target)
    for estimator, why in [(encoded, "Pipeline cannot be .*: invalid"), (transformed, "Regressor cannot be")]:
        with pytest.raises(cloister.BadInput, match=why) as caught:
            cloister.import_model(estimator)
        assert caught.value.code == "not_exported" and "pandas.get_dummies" in caught.value.remedy
        assert caught.value.__cause__ is not None
    with pytest.raises(cloister.BadInput, match="a model is made of no object\n.*estimator.*path.*bytes.*ModelProto"):
        cloister.import_model(object())


@pytest.mark.parametrize("classifier", [LogisticRegression(), GridSearchCV(LogisticRegression(), {"C": [1, 2]})])
def test_labels_that_onnx_changes_are_refused(classifier):
    X = StandardScaler().fit_transform(IRIS.data)
    with pytest.raises(cloister.BadInput, match="class 1000000000000 becomes -727379968") as caught:
        cloister.import_model(classifier.fit(X, IRIS.target.to_numpy() * 10**12), ranges=X)
    assert caught.value.code == "changed_label"
    bundle = cloister.import_model(classifier.fit(X, IRIS.target.to_numpy() * 1.0), ranges=X)
    assert bundle.description.labels == (0, 1, 2)


def test_ranges_may_be_a_frame_whose_columns_are_integers():
    frame = pd.DataFrame(IRIS.data.to_numpy())
    bundle = cloister.import_model(LogisticRegression(max_iter=5000).fit(frame, SPECIES), ranges=frame)
    assert [feature.name for feature in bundle.description.features] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [(np.nan, "no_numbers", "'x3' is entirely NaN"), (np.inf, "not_finite", "'x3' has infinite values")],
)
def test_a_column_without_a_range_is_refused(value, code, message):
    X = IRIS.data.to_numpy()
    fitted = LogisticRegression(max_iter=5000).fit(X, SPECIES)
    with pytest.raises(cloister.BadInput, match=message) as caught:
        cloister.import_model(fitted, ranges=np.column_stack([X[:, :3], np.full(len(X), value)]))
    assert caught.value.code == code


def test_columns_may_lie_on_a_grid_and_have_the_names_of_a_frame():
    fitted = LogisticRegression(max_iter=5000).fit(IRIS.data.to_numpy(), SPECIES)
    grid = {name: 0.1 for name in IRIS.data.columns}
    bundle = cloister.import_model(fitted, ranges=IRIS.data, precision=1e-6, grid=grid)
    assert [feature.name for feature in bundle.description.features] == list(IRIS.data.columns)
    assert {feature.step for feature in bundle.description.features} == {0.1}
    unnamed = cloister.import_model(fitted, ranges=IRIS.data.to_numpy())
    assert [feature.name for feature in unnamed.description.features] == ["x0", "x1", "x2", "x3"]
    for options, code in [({"grid": {"colour": 1.0}}, "no_column"), ({"grid": grid, "ranges": None}, "usage")]:
        with pytest.raises(cloister.BadInput) as caught:
            cloister.import_model(fitted, **{"ranges": IRIS.data, **options})
        assert caught.value.code == code
