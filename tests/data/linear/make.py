"""Makes scikit-learn pipelines of many kinds and the numbers that the tests hold Cloister to.

Run it from any folder; it trains every case below and writes its outputs beside itself:

    cases.json         what there is: dataset, dtype, model, steps, options and classes of every case
    DATASET.csv        the rows that the cases of one dataset share; an empty cell is a missing value
    NAME.onnx          a pipeline as skl2onnx exports it
    NAME.expected.csv  scikit-learn's own float64 results on every row of the dataset, at full precision: `label`,
                       `decision:0..`, `probability:CLASS`, `prediction:0..`, as far as the model has them
    refused/NAME.onnx  pipelines that are no affine model, which an import has to refuse

onnxruntime runs every exported graph and has to agree with scikit-learn, or the script fails. `graph_scores` in
cases.json says what the graph itself gives beside the label; where it is "other", see the note in the case list.

Requirements, with Python 3.11 (a re-run with these gives the same bytes up to the last digits of the fit; the stored
files are from one thread, OMP_NUM_THREADS=1):

    numpy==2.4.6
    onnx==1.23.2
    onnxruntime==1.32.0
    pandas==3.1.1
    scikit-learn==1.9.1
    scipy==1.17.1
    skl2onnx==1.20.0
"""

import csv
import json
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from scipy.special import expit
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, LinearSVR

FOLDER = Path(__file__).resolve().parent
SEED = 20261122
OPSET = {"": 18, "ai.onnx.ml": 1}
TENSORS = {"float32": FloatTensorType, "float64": DoubleTensorType}

# How many rows are held out as the dataset's csv; None: train on all rows and write all rows.
TEST_ROWS = {
    "iris": None,
    "iris-missing": None,
    "wine": None,
    "breast_cancer": 143,
    "digits": 120,
    "diabetes": 110,
    "linnerud": None,
}
LOADERS = {
    "iris": datasets.load_iris,
    "iris-missing": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
    "linnerud": datasets.load_linnerud,
}


@dataclass
class Case:
    name: str
    dataset: str
    dtype: str
    pipeline: object
    labels: object = "int"  # "int", "text", "bool", or a list with a label for each class
    options: dict = field(default_factory=dict)  # skl2onnx's, for the last step
    named_columns: bool = False  # one input per column, as after training on a DataFrame
    client_steps: bool = False  # the graph begins with a step that is not affine but may run on the client
    graph_scores: str = ""  # empty: derived


def cases():
    return classifiers() + regressors() + other_inputs() + with_client_steps()


def classifiers():
    # skl2onnx exports LinearSVC and RidgeClassifier in float64 only with raw_scores, and LinearSVC in a pipeline
    # only with some option that is its own: without one it stumbles over its own zipmap.
    # OneVsRestClassifier(LinearSVC()) does not export in float64 at all.
    svc_single = {"raw_scores": False}
    raw = {"raw_scores": True}
    off = {"zipmap": False}
    columns = {"zipmap": "columns"}
    return [
        Case("iris-logistic", "iris", "float32", pipe(logistic()), "text"),
        Case("iris-logistic-columns", "iris", "float64", pipe(StandardScaler(), logistic()), "text", columns),
        Case("iris-logistic-odd-labels", "iris", "float32", pipe(MinMaxScaler(), logistic()), [-7, 3, 11], off),
        Case("wine-logistic-array", "wine", "float64", pipe(StandardScaler(), logistic()), "int", off),
        Case("wine-logistic-float-columns", "wine", "float32", pipe(RobustScaler(), logistic()), "text", columns),
        Case("wine-logistic-zipmap", "wine", "float64", pipe(RobustScaler(), logistic()), "text"),
        Case("digits-logistic", "digits", "float32", pipe(MaxAbsScaler(), logistic())),
        Case(
            "digits-pca-whiten",
            "digits",
            "float64",
            pipe(PCA(20, whiten=True, random_state=SEED), logistic()),
            "int",
            off,
        ),
        Case("digits-svd", "digits", "float32", pipe(TruncatedSVD(24, random_state=SEED), logistic())),
        Case("wine-pca", "wine", "float32", pipe(StandardScaler(), PCA(5), logistic()), "text", off),
        Case("wine-pca-whiten", "wine", "float32", pipe(StandardScaler(), PCA(4, whiten=True), logistic())),
        Case("wine-select-best", "wine", "float32", pipe(StandardScaler(), SelectKBest(k=6), logistic()), "text"),
        Case(
            "wine-variance", "wine", "float64", pipe(VarianceThreshold(0.2), StandardScaler(), logistic()), "int", off
        ),
        Case("wine-union", "wine", "float32", pipe(make_union(StandardScaler(), PCA(2)), logistic()), "text"),
        Case("cancer-logistic-bool", "breast_cancer", "float32", pipe(StandardScaler(), logistic()), "bool"),
        Case("cancer-logistic-text", "breast_cancer", "float64", pipe(RobustScaler(), logistic()), "text"),
        Case("cancer-liblinear", "breast_cancer", "float32", pipe(MinMaxScaler(), logistic(solver="liblinear"))),
        Case("cancer-scalers", "breast_cancer", "float64", scalers(logistic()), "bool", off),
        Case("cancer-raw-scores", "breast_cancer", "float32", pipe(StandardScaler(), logistic()), "int", raw),
        Case("wine-raw-scores", "wine", "float64", pipe(StandardScaler(), logistic()), "text", raw | off),
        Case("wine-one-vs-rest", "wine", "float32", pipe(StandardScaler(), OneVsRestClassifier(logistic())), "text"),
        Case(
            "iris-one-vs-rest", "iris", "float64", pipe(StandardScaler(), OneVsRestClassifier(logistic())), "int", off
        ),
        Case("cancer-one-vs-rest", "breast_cancer", "float32", pipe(StandardScaler(), OneVsRestClassifier(logistic()))),
        # Its "probabilities" are the scores divided by the sum of their absolute values.
        Case(
            "iris-one-vs-rest-svc",
            "iris",
            "float32",
            pipe(StandardScaler(), OneVsRestClassifier(svc())),
            "text",
            graph_scores="other",
        ),
        Case("iris-svc", "iris", "float32", pipe(StandardScaler(), svc()), "text", svc_single),
        Case("cancer-svc", "breast_cancer", "float32", pipe(StandardScaler(), svc()), "text", svc_single),
        Case("cancer-svc-raw", "breast_cancer", "float64", pipe(MaxAbsScaler(), svc()), "int", raw),
        Case("wine-svc-raw", "wine", "float64", pipe(StandardScaler(), svc()), "text", raw),
        Case("wine-ridge", "wine", "float32", pipe(PCA(5), RidgeClassifier()), "text"),
        Case("cancer-ridge", "breast_cancer", "float32", pipe(StandardScaler(), RidgeClassifier()), "bool"),
        Case("digits-ridge-raw", "digits", "float64", pipe(MaxAbsScaler(), RidgeClassifier()), "int", raw),
        Case("cancer-ridge-raw", "breast_cancer", "float64", pipe(StandardScaler(), RidgeClassifier()), "int", raw),
        Case("digits-sgd-hinge", "digits", "float64", pipe(MaxAbsScaler(), sgd("hinge"))),
        Case("cancer-sgd-hinge", "breast_cancer", "float32", pipe(StandardScaler(), sgd("hinge")), "text"),
        Case("wine-sgd-log", "wine", "float32", pipe(StandardScaler(), sgd("log_loss")), "text"),
        Case("cancer-sgd-log", "breast_cancer", "float64", pipe(StandardScaler(), sgd("log_loss")), "int", off),
        Case("iris-sgd-log", "iris", "float64", pipe(MinMaxScaler((-1, 1)), sgd("log_loss")), [-5, -3, -1], off),
        Case("wine-perceptron", "wine", "float32", pipe(StandardScaler(), Perceptron(random_state=SEED))),
        Case(
            "cancer-perceptron",
            "breast_cancer",
            "float64",
            pipe(StandardScaler(), Perceptron(random_state=SEED)),
            "text",
            off,
        ),
        Case("wine-lda", "wine", "float32", pipe(LinearDiscriminantAnalysis()), "text"),
        Case("iris-lda", "iris", "float64", pipe(PCA(3), LinearDiscriminantAnalysis()), [-1, 1, 7], off),
        # skl2onnx takes a softmax over (-d, d): its probability is the logistic function of 2d, scikit-learn's is of d.
        Case(
            "cancer-lda",
            "breast_cancer",
            "float64",
            pipe(StandardScaler(), LinearDiscriminantAnalysis()),
            "int",
            off,
            graph_scores="other",
        ),
        Case(
            "cancer-lda-float",
            "breast_cancer",
            "float32",
            pipe(LinearDiscriminantAnalysis()),
            "text",
            graph_scores="other",
        ),
    ]


def regressors():
    return [
        Case("diabetes-linear", "diabetes", "float32", pipe(LinearRegression())),
        Case("diabetes-linear-double", "diabetes", "float64", pipe(StandardScaler(), LinearRegression())),
        Case("diabetes-ridge", "diabetes", "float32", pipe(StandardScaler(), Ridge())),
        Case("diabetes-lasso", "diabetes", "float64", pipe(Lasso(alpha=0.1))),
        Case("diabetes-elastic-net", "diabetes", "float32", pipe(MinMaxScaler(), ElasticNet(alpha=0.01))),
        Case("diabetes-bayesian", "diabetes", "float32", pipe(BayesianRidge())),
        Case("diabetes-bayesian-double", "diabetes", "float64", pipe(RobustScaler(), BayesianRidge())),
        Case("diabetes-pls", "diabetes", "float32", pipe(PLSRegression(3))),
        Case("diabetes-huber", "diabetes", "float64", pipe(StandardScaler(), HuberRegressor(max_iter=1000))),
        Case(
            "diabetes-svr", "diabetes", "float32", pipe(StandardScaler(), LinearSVR(random_state=SEED, max_iter=20000))
        ),
        # Behind a log link: the graph ends in Exp.
        Case("diabetes-poisson", "diabetes", "float32", pipe(PoissonRegressor(max_iter=1000))),
        Case("diabetes-poisson-double", "diabetes", "float64", pipe(StandardScaler(), PoissonRegressor(max_iter=1000))),
        Case("diabetes-gamma", "diabetes", "float64", pipe(StandardScaler(), GammaRegressor(max_iter=1000))),
        Case("linnerud-linear", "linnerud", "float64", pipe(LinearRegression())),
        Case("linnerud-ridge", "linnerud", "float32", pipe(StandardScaler(), Ridge())),
        Case("linnerud-pls", "linnerud", "float64", pipe(PLSRegression(2))),
    ]


def other_inputs():
    iris, wine = column_names("iris"), column_names("wine")
    groups = ColumnTransformer([("lengths", StandardScaler(), iris[::2]), ("widths", MinMaxScaler(), iris[1::2])])
    wine_groups = ColumnTransformer(
        [
            ("first", RobustScaler(), wine[7:]),
            ("second", StandardScaler(), wine[:5]),
            ("third", "passthrough", wine[5:7]),
        ]
    )
    array_groups = ColumnTransformer([("some", StandardScaler(), [2, 0]), ("more", MaxAbsScaler(), [3])])
    return [
        Case("iris-named", "iris", "float32", pipe(StandardScaler(), logistic()), "text", named_columns=True),
        Case(
            "iris-named-double",
            "iris",
            "float64",
            pipe(StandardScaler(), logistic()),
            "int",
            {"zipmap": False},
            named_columns=True,
        ),
        Case("iris-named-groups", "iris", "float32", pipe(groups, logistic()), "text", named_columns=True),
        Case(
            "wine-named-groups",
            "wine",
            "float64",
            pipe(wine_groups, logistic()),
            "text",
            {"zipmap": "columns"},
            named_columns=True,
        ),
        Case("iris-array-groups", "iris", "float32", pipe(array_groups, logistic()), "text"),
        Case("diabetes-named-ridge", "diabetes", "float32", pipe(StandardScaler(), Ridge()), named_columns=True),
    ]


def with_client_steps():
    def normalised():
        return pipe(Normalizer(), logistic())

    def imputed():
        return pipe(SimpleImputer(), StandardScaler(), logistic())

    # No imputer in float64: skl2onnx exports an Imputer of doubles (its means in float32), but onnxruntime has none.
    off = {"zipmap": False}
    return [
        Case("iris-normalizer", "iris", "float32", normalised(), "text", client_steps=True),
        Case("iris-normalizer-double", "iris", "float64", normalised(), "int", off, client_steps=True),
        Case("iris-imputer", "iris-missing", "float32", imputed(), "text", client_steps=True),
    ]


def refused():
    """Name, pipeline and input type; each pipeline has a step that is not affine. All are trained on iris."""
    floats = FloatTensorType
    bins = KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf")
    return [
        ("polynomial", pipe(PolynomialFeatures(2), logistic()), floats),
        ("one-hot", pipe(OneHotEncoder(handle_unknown="ignore"), logistic()), Int64TensorType),
        ("bins", pipe(bins, logistic()), floats),
        ("clip", pipe(MinMaxScaler(clip=True), logistic()), floats),
        ("power", pipe(PowerTransformer(), logistic()), floats),
        ("quantile", pipe(QuantileTransformer(n_quantiles=10), logistic()), floats),
        ("svc-rbf", pipe(StandardScaler(), SVC(kernel="rbf", C=10.0)), floats),
        ("neighbours", pipe(KNeighborsClassifier(3)), floats),
        ("calibrated", pipe(CalibratedClassifierCV(svc(), cv=2)), floats),
        ("naive-bayes", pipe(GaussianNB()), floats),
    ]


def pipe(*steps):
    return make_pipeline(*steps)


def logistic(**options):
    return LogisticRegression(random_state=SEED, max_iter=5000, **options)


def svc():
    return LinearSVC(random_state=SEED, max_iter=20000)


def sgd(loss):
    return SGDClassifier(loss=loss, alpha=0.01, random_state=SEED)


def scalers(model):
    return pipe(MaxAbsScaler(), StandardScaler(), RobustScaler(), MinMaxScaler((-1, 1)), model)


def main():
    # Some solvers stop early on some datasets; the comparison needs one fixed model, not the best one.
    warnings.simplefilter("ignore", ConvergenceWarning)
    # skl2onnx 1.20 reads what scikit-learn 1.9 deprecates.
    warnings.filterwarnings("ignore", "Attribute `prob._` was deprecated", FutureWarning)
    for dataset in TEST_ROWS:
        write_dataset(dataset)
    written = [make_case(case) for case in cases()]
    written.sort(key=lambda entry: entry["name"])
    (FOLDER / "cases.json").write_text(json.dumps(written, indent=1) + "\n")
    (FOLDER / "refused").mkdir(exist_ok=True)
    for name, pipeline, tensor in refused():
        make_refused(name, pipeline, tensor)


# Data


@cache
def load(dataset):
    """Training rows, their targets, test rows, and the names of the classes."""
    bunch = LOADERS[dataset](as_frame=True)
    rows, target = bunch.data.astype("float64"), bunch.target
    if dataset == "iris-missing":
        missing = np.random.default_rng(SEED).random(rows.shape) < 0.08
        rows = rows.mask(missing)
    names = getattr(bunch, "target_names", None)
    held_out = TEST_ROWS[dataset]
    if held_out is None:
        return rows, target.to_numpy(), rows, names
    train, test, train_target, _ = train_test_split(rows, target, test_size=held_out, random_state=SEED)
    return train, train_target.to_numpy(), test, names


def column_names(dataset):
    return list(load(dataset)[2].columns)


def write_dataset(dataset):
    rows = load(dataset)[2]
    cells = [["" if np.isnan(value) else number(value) for value in row] for row in rows.to_numpy()]
    write_csv(f"{dataset}.csv", rows.columns, cells)


def relabel(target, names, labels):
    if labels == "int":
        return target
    if labels == "bool":
        return target == 1
    if labels == "text":
        return np.array([str(name) for name in names])[target]
    return np.array(labels)[target]


# Cases


def make_case(case):
    rows, target, test, names = load(case.dataset)
    classifier = is_classifier(case.pipeline)
    target = relabel(target, names, case.labels) if classifier else target
    fit(case.pipeline, rows, target, case.named_columns)

    shown = test if case.named_columns else test.to_numpy()
    expected = results(case.pipeline, shown)
    write_expected(case.name, expected)
    model = export(case.pipeline, case.name, inputs(case, test), case.options)
    write_onnx(f"{case.name}.onnx", model)
    scores = case.graph_scores or default_scores(case, expected)
    check(case, model, test, expected, scores)
    return describe(case, model, expected, scores)


def fit(pipeline, rows, target, named_columns):
    pipeline.fit(rows if named_columns else rows.to_numpy(), target)


def results(pipeline, rows):
    """scikit-learn's own results: text for labels, else float64 with a column per class or target."""
    if not is_classifier(pipeline):
        return {"prediction": columnwise(pipeline.predict(rows))}
    found = {"label": pipeline.predict(rows)}
    if hasattr(pipeline, "decision_function"):
        found["decision"] = columnwise(pipeline.decision_function(rows))
    if hasattr(pipeline, "predict_proba"):
        found["probability"] = pipeline.predict_proba(rows)
    found["classes"] = pipeline.classes_
    return found


def columnwise(values):
    return values.reshape(len(values), -1)


def default_scores(case, expected):
    if "prediction" in expected:
        return "prediction"
    if "probability" in expected and not case.options.get("raw_scores"):
        return "probability"
    return "decision"


def describe(case, model, expected, scores):
    entry = {
        "name": case.name,
        "dataset": case.dataset,
        "dtype": case.dtype,
        "model": type(case.pipeline[-1]).__name__,
        "steps": [type(step).__name__ for _, step in case.pipeline.steps],
        "kind": "classifier" if "label" in expected else "regressor",
        "outputs": [kind for kind in ("label", "decision", "probability", "prediction") if kind in expected],
        "zipmap": any(node.op_type == "ZipMap" for node in model.graph.node),
        "graph_scores": scores,
        "named_columns": case.named_columns,
        "client_steps": case.client_steps,
    }
    if "classes" in expected:
        entry["classes"] = expected["classes"].tolist()
    return entry


def write_expected(name, expected):
    header, columns = [], []
    if "label" in expected:
        header.append("label")
        columns.append([str(label) for label in expected["label"].tolist()])
    for kind in ("decision", "probability", "prediction"):
        if kind not in expected:
            continue
        values = expected[kind]
        suffixes = expected["classes"].tolist() if kind == "probability" else range(values.shape[1])
        header += [f"{kind}:{suffix}" for suffix in suffixes]
        columns += [[number(value) for value in column] for column in values.T]
    write_csv(f"{name}.expected.csv", header, zip(*columns, strict=True))


# Export


def inputs(case, rows):
    tensor = TENSORS[case.dtype]
    if case.named_columns:
        # skl2onnx replaces the characters that no identifier has: "sepal length (cm)" becomes sepal_length__cm_.
        return [(name, tensor([None, 1])) for name in rows.columns]
    return [("X", tensor([None, rows.shape[1]]))]


def export(pipeline, name, initial_types, options):
    # Without a name the graph gets a random one, and no two runs would agree.
    options = {id(pipeline[-1]): options} if options else None
    return convert_sklearn(pipeline, name=name, initial_types=initial_types, target_opset=OPSET, options=options)


def make_refused(name, pipeline, tensor):
    rows, target, _, _ = load("iris")
    rows = rows.to_numpy()
    if tensor is Int64TensorType:
        rows = rows.astype("int64")
    pipeline.fit(rows, target)
    model = export(pipeline, name, [("X", tensor([None, rows.shape[1]]))], None)
    write_onnx(f"refused/{name}.onnx", model)
    rows = rows.astype("int64" if tensor is Int64TensorType else "float32")
    agreed = (session(model).run(None, {"X": rows})[0] == pipeline.predict(rows)).mean()
    # Some of these decide by thresholds, which a float32 may miss by its last digit.
    if agreed < 0.97:
        raise SystemExit(f"refused/{name}: {agreed:.1%} of the labels agree")


# The check of what was exported


def check(case, model, rows, expected, scores):
    outputs = run(case, model, rows)
    tolerance = 1e-5 if single_precision(case) else 1e-12
    if "prediction" in expected:
        return compare(case, outputs[0].reshape(expected["prediction"].shape), expected["prediction"], tolerance)
    got = score_columns(outputs[1:], expected["classes"])
    own = other_scores(expected["decision"]) if scores == "other" else expected[scores]
    compare(case, got, as_graph_scores(own, got.shape[1]), tolerance)
    clear = margins(expected["decision"]) > tolerance
    labels = np.array([str(label) for label in label_text(case, outputs[0])])
    wanted = np.array([str(label) for label in expected["label"].tolist()])
    if not (labels[clear] == wanted[clear]).all():
        raise SystemExit(f"{case.name}: {(labels != wanted).sum()} labels differ")


def single_precision(case):
    # Separate inputs pass through a FeatureVectorizer, whose output is float32 whatever its inputs are.
    return case.dtype == "float32" or case.named_columns


def run(case, model, rows):
    rows = rows.astype(case.dtype)
    names = [value.name for value in model.graph.input]
    feed = (
        {name: rows.iloc[:, [i]].to_numpy() for i, name in enumerate(names)}
        if case.named_columns
        else {"X": rows.to_numpy()}
    )
    return session(runnable(model)).run(None, feed)


def session(model):
    options = onnxruntime.SessionOptions()
    # Errors only: for a few models skl2onnx declares output shapes that are not what the graph gives.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def runnable(model):
    """onnxruntime has no ZipMap for doubles, which skl2onnx exports all the same: take what goes into it."""
    double_maps = [
        node
        for node in model.graph.node
        if node.op_type == "ZipMap" and model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    ]
    if not double_maps:
        return model
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for node in double_maps:
        cut.graph.node.remove(node)
        output = next(value for value in cut.graph.output if value.name == node.output[0])
        output.CopyFrom(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.DOUBLE, None))
    return cut


def score_columns(outputs, classes):
    """The graph's scores as one array, whether it gave an array, a list of maps, or an output per class."""
    if isinstance(outputs[0], list):
        return np.array([[row[key] for key in classes.tolist()] for row in outputs[0]])
    if len(outputs) > 1:
        return np.stack(outputs, axis=1)
    return columnwise(outputs[0])


def other_scores(decision):
    """What the graphs give whose case is marked "other": see the notes there."""
    if decision.shape[1] == 1:
        return expit(2 * np.hstack([-decision, decision]))
    return decision / np.abs(decision).sum(axis=1, keepdims=True)


def as_graph_scores(values, columns):
    """Some graphs give both (-d, d) where scikit-learn has the one decision d."""
    return np.hstack([-values, values]) if values.shape[1] == 1 and columns == 2 else values


def label_text(case, labels):
    # ONNX has no boolean labels here: skl2onnx writes 0 and 1.
    return [bool(label) for label in labels] if case.labels == "bool" else labels.tolist()


def margins(decision):
    """How far each row is from a tie between its two best classes."""
    if decision.shape[1] == 1:
        return np.abs(decision[:, 0])
    best = np.sort(decision, axis=1)
    return best[:, -1] - best[:, -2]


def compare(case, got, wanted, tolerance):
    error = np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max())
    if got.shape != wanted.shape or not error <= tolerance:
        raise SystemExit(f"{case.name}: the graph is off by {error} (relative to the largest value)")


# Files


def write_onnx(name, model):
    # skl2onnx lists the operator sets in the order of a hash that differs from run to run.
    model.opset_import.sort(key=lambda opset: opset.domain)
    (FOLDER / name).write_bytes(model.SerializeToString(deterministic=True))


def write_csv(name, header, rows):
    with open(FOLDER / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def number(value):
    return repr(float(value))


if __name__ == "__main__":
    main()
