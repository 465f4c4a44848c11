"""Makes trees, forests, boosted trees and small networks, and the numbers that the tests hold Cloister to.

Run it from any folder; it trains every case below and writes its outputs beside itself:

    cases.json         what there is: dataset, files of rows, kind, framework, model, steps and score of every case
    DATASET.csv        the rows that the cases of one dataset share, unless a neighbouring folder has just these rows:
                       `rows` in cases.json says which file it is; an empty cell is a missing value
    DATASET.train.csv  rows that the models were trained on, from which an import takes the ranges of the features
    NAME.onnx          a model as skl2onnx and onnxmltools export it; a few are rewritten with operators that neither
                       writes
    NAME.expected.csv  the framework's own results on every row of the dataset, at full precision: `label`, `target`
                       (the truth), `decision:0..`, `probability:CLASS`, `prediction:0..`, as far as the model has them
    refused/NAME.onnx  models that an import has to refuse

A decision is the raw score before the last function: XGBoost's margin, LightGBM's raw score, the decision function of
gradient boosting, a network's last layer. Trees and forests have none: their probabilities are averages.

iris-peers, bc-peers and digits-peers are the tasks on which Cloister is compared with other systems, and the models
on them (iris-dt, ..., bc-network) have the hyper-parameters of that comparison. Their rows are scaled before training.
iris, iris-missing, wine and linnerud hold out no rows: the score of their cases is that of the training rows.

onnxruntime runs every exported graph and has to agree with the framework, or the script fails. Only a row that lies on
a threshold up to the rounding to float32 may go the other way: `crossed` in cases.json counts such rows.

Requirements, with Python 3.11 (a re-run with these gives the same bytes up to the last digits of the fit; the stored
files are from one thread, OMP_NUM_THREADS=1):

    lightgbm==4.7.0
    numpy==2.4.6
    onnx==1.23.2
    onnxmltools==1.16.0
    onnxruntime==1.32.0
    pandas==3.1.1
    scikit-learn==1.9.1
    scipy==1.17.1
    skl2onnx==1.20.0
    xgboost-cpu==3.2.0
"""

import csv
import json
import sys
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from scipy.special import expit, softmax
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

FOLDER = Path(__file__).resolve().parent
# The same datasets, split in the same way, and the same ways to export.
sys.path.insert(0, str(FOLDER.parent / "linear"))
from make import (  # noqa: E402
    LOADERS,
    SEED,
    TEST_ROWS,
    columnwise,
    inputs,
    number,
    pipe,
    relabel,
    score_columns,
    session,
)

OPSET = {"": 18, "ai.onnx.ml": 3}
# Enough for the ranges of all features, and small.
TRAIN_ROWS = 600

# The rows of each dataset, from the folder above this one.
ROWS = {
    "iris": "linear/iris.csv",
    "iris-missing": "linear/iris-missing.csv",
    "wine": "linear/wine.csv",
    "breast_cancer": "linear/breast_cancer.csv",
    "digits": "linear/digits.csv",
    "diabetes": "linear/diabetes.csv",
    "linnerud": "linear/linnerud.csv",
    "iris-peers": "trees/iris-peers.csv",
    "bc-peers": "tasks/bc.csv",
    "digits-peers": "tasks/digits.csv",
}


@dataclass
class Case:
    name: str
    dataset: str
    pipeline: object
    labels: object = "int"  # "int", "text", "bool", or a list with a label for each class
    options: dict = field(default_factory=dict)  # of the export of the last step
    dtype: str = "float32"
    named_columns: bool = False  # one input per column, as after training on a DataFrame
    client_steps: bool = False  # the graph begins with a step that runs on the client
    rewrite: object = None  # what writes the exported graph anew, with operators that no exporter writes yet


def cases():
    return peers() + trees() + boosted() + networks() + with_client_steps() + rewritten()


def peers():
    """The models of the comparison; zipmap off, as a service would export them."""
    return [
        Case("iris-dt", "iris-peers", pipe(DecisionTreeClassifier(max_depth=4, random_state=0)), options=OFF),
        Case("iris-rf", "iris-peers", pipe(RandomForestClassifier(10, max_depth=4, random_state=0)), options=OFF),
        Case("iris-xgb", "iris-peers", pipe(xgb()), options=OFF),
        Case("iris-16", "iris-peers", pipe(peer_network(16)), options=OFF),
        Case("bc-dt", "bc-peers", pipe(DecisionTreeClassifier(max_depth=4, random_state=0)), options=OFF),
        Case("bc-rf", "bc-peers", pipe(RandomForestClassifier(10, max_depth=4, random_state=0)), options=OFF),
        Case("bc-xgb", "bc-peers", pipe(xgb()), options=OFF),
        Case("bc-network", "bc-peers", pipe(peer_network(30)), options=OFF),
        Case("digits-xgb", "digits-peers", pipe(xgb()), options=OFF),
    ]


def trees():
    def tree(depth=4, **options):
        return DecisionTreeClassifier(max_depth=depth, random_state=SEED, **options)

    def forest(trees=10, depth=4, **options):
        return RandomForestClassifier(trees, max_depth=depth, random_state=SEED, **options)

    def extra(trees, depth):
        return ExtraTreesClassifier(trees, max_depth=depth, random_state=SEED)

    def depth(model, levels, *arguments):
        return pipe(model(*arguments, max_depth=levels, random_state=SEED))

    return [
        Case("iris-tree", "iris", pipe(tree()), "text"),
        Case("iris-tree-double", "iris", pipe(tree()), "int", OFF, dtype="float64"),
        Case("iris-forest-named", "iris", pipe(StandardScaler(), forest()), "text", named_columns=True),
        Case("wine-tree-scaled", "wine", pipe(StandardScaler(), tree()), "text"),
        Case("cancer-tree-scaled", "breast_cancer", pipe(MinMaxScaler(), tree(None, min_samples_leaf=5)), "bool"),
        Case("cancer-tree-entropy", "breast_cancer", pipe(tree(6, criterion="entropy")), "text", COLUMNS),
        Case("digits-tree", "digits", pipe(tree(8))),
        Case("wine-forest", "wine", pipe(forest()), "text"),
        Case("cancer-forest", "breast_cancer", pipe(forest()), "bool", OFF),
        Case("cancer-forest-double", "breast_cancer", pipe(forest(5, 3)), "text", OFF, dtype="float64"),
        Case("cancer-forest-scaled", "breast_cancer", pipe(RobustScaler(), forest(12, 3)), "int", OFF),
        Case("wine-extra-trees", "wine", pipe(extra(15, 3)), [-7, 3, 11], OFF),
        Case("digits-extra-trees", "digits", pipe(MaxAbsScaler(), extra(10, 5))),
        Case("diabetes-tree", "diabetes", depth(DecisionTreeRegressor, 5)),
        Case("diabetes-forest", "diabetes", depth(RandomForestRegressor, 4, 10)),
        Case("diabetes-forest-double", "diabetes", depth(RandomForestRegressor, 4, 10), dtype="float64"),
        Case("diabetes-extra-trees", "diabetes", depth(ExtraTreesRegressor, 5, 8)),
        Case("linnerud-tree", "linnerud", depth(DecisionTreeRegressor, 3)),
        Case("linnerud-forest", "linnerud", depth(RandomForestRegressor, 3, 5)),
    ]


def boosted():
    def boosting(trees, **options):
        return GradientBoostingClassifier(n_estimators=trees, random_state=SEED, **options)

    def regression(trees, **options):
        return pipe(GradientBoostingRegressor(n_estimators=trees, random_state=SEED, **options))

    return [
        Case("cancer-boosting", "breast_cancer", pipe(boosting(20)), "text"),
        Case("wine-boosting", "wine", pipe(boosting(8, max_depth=2)), "int", OFF),
        Case("iris-boosting-scaled", "iris", pipe(StandardScaler(), boosting(10)), "text", COLUMNS),
        Case("diabetes-boosting", "diabetes", regression(30)),
        Case("diabetes-boosting-double", "diabetes", regression(15, max_depth=2), dtype="float64"),
        Case("wine-xgb", "wine", pipe(xgb(8))),
        Case("cancer-xgb-scaled", "breast_cancer", pipe(StandardScaler(), xgb()), options=OFF),
        Case("diabetes-xgb", "diabetes", pipe(XGBRegressor(n_estimators=20, max_depth=3, random_state=0, n_jobs=1))),
        Case("cancer-lgbm", "breast_cancer", pipe(lgbm(LGBMClassifier, 20)), options=OFF),
        Case("cancer-lgbm-scaled", "breast_cancer", pipe(StandardScaler(), lgbm(LGBMClassifier, 12)), "int"),
        Case("wine-lgbm", "wine", pipe(lgbm(LGBMClassifier, 8)), "text", OFF),
        Case("digits-lgbm", "digits", pipe(lgbm(LGBMClassifier, 8)), options=OFF),
        Case("diabetes-lgbm", "diabetes", pipe(lgbm(LGBMRegressor, 25))),
    ]


def networks():
    def network(hidden, activation):
        return MLPClassifier((hidden,), activation=activation, max_iter=3000, random_state=SEED)

    def scaled(hidden, activation):
        return pipe(StandardScaler(), network(hidden, activation))

    def regression(hidden, activation):
        fixed = {"learning_rate_init": 0.02, "max_iter": 3000, "random_state": SEED}
        return pipe(StandardScaler(), MLPRegressor(hidden_layer_sizes=(hidden,), activation=activation, **fixed))

    return [
        Case("iris-network", "iris", scaled(16, "relu"), "text"),
        Case("wine-network-tanh", "wine", scaled(12, "tanh"), "text", OFF),
        Case("digits-network", "digits", pipe(MaxAbsScaler(), network(16, "logistic")), "int", OFF),
        Case("cancer-network", "breast_cancer", scaled(8, "relu"), "text"),
        Case("cancer-network-logistic", "breast_cancer", scaled(10, "logistic"), "int", OFF, dtype="float64"),
        Case("cancer-network-identity", "breast_cancer", scaled(8, "identity"), "bool", OFF),
        Case("diabetes-network", "diabetes", regression(16, "relu")),
        Case("diabetes-network-tanh", "diabetes", regression(12, "tanh"), dtype="float64"),
        Case("linnerud-network", "linnerud", regression(8, "tanh")),
    ]


def with_client_steps():
    forest = RandomForestClassifier(6, max_depth=3, random_state=SEED)
    return [Case("iris-imputer-forest", "iris-missing", pipe(SimpleImputer(), forest), "text", client_steps=True)]


def rewritten():
    forest = RandomForestRegressor(6, max_depth=4, random_state=SEED)
    return [
        Case("iris-xgb-v5", "iris-peers", pipe(xgb(6)), options=OFF, rewrite=with_one_operator),
        Case("diabetes-forest-v5", "diabetes", pipe(forest), rewrite=with_one_operator),
        Case("diabetes-forest-v5-double", "diabetes", pipe(forest), dtype="float64", rewrite=with_one_operator),
        Case("diabetes-forest-tensors", "diabetes", pipe(forest), dtype="float64", rewrite=with_tensors),
    ]


def refused():
    """Name, dataset and pipeline.

    The two that are trained on missing values send these their own way: in nodes_missing_value_tracks_true XGBoost
    has zeros only if there were none, and LightGBM sends them where it sends a zero.
    Not among them: HistGradientBoosting, which skl2onnx 1.20 cannot export with onnx 1.23.
    """

    def forest(trees=4, **options):
        return RandomForestClassifier(trees, max_depth=3, random_state=SEED, **options)

    members = [("first", forest()), ("second", ExtraTreesClassifier(4, max_depth=3, random_state=SEED))]
    deep = MLPClassifier((8, 8), max_iter=2000, random_state=SEED)
    return [
        ("missing-xgb", "iris-missing", pipe(xgb(5))),
        ("missing-lgbm", "iris-missing", pipe(lgbm(LGBMClassifier, 5))),
        ("categorical-lgbm", "digits", pipe(lgbm(LGBMClassifier, 3, categorical_feature=[21], min_data_per_group=1))),
        ("network-deep", "iris", pipe(StandardScaler(), deep)),
        ("pca-tree", "iris", pipe(PCA(2), DecisionTreeClassifier(max_depth=3, random_state=SEED))),
        ("stacking", "iris", pipe(StackingClassifier(members, LogisticRegression(), cv=2))),
        ("calibrated", "iris", pipe(CalibratedClassifierCV(forest(), cv=2))),
        ("adaboost", "iris", pipe(AdaBoostClassifier(n_estimators=4, random_state=SEED))),
    ]


def xgb(trees=20):
    return XGBClassifier(n_estimators=trees, max_depth=3, random_state=0, n_jobs=1)


def lgbm(model, trees, **options):
    fixed = {"deterministic": True, "force_row_wise": True, "n_jobs": 1, "verbose": -1, "random_state": SEED}
    return model(n_estimators=trees, num_leaves=8, **fixed, **options)


def peer_network(hidden):
    return MLPClassifier(hidden_layer_sizes=(hidden,), max_iter=1000, random_state=0)


OFF = {"zipmap": False}
COLUMNS = {"zipmap": "columns"}


def main():
    # Some networks stop early; the comparison needs one fixed model, not the best one.
    warnings.simplefilter("ignore", ConvergenceWarning)
    # LightGBM names the columns of an array, and then misses the names.
    warnings.filterwarnings("ignore", "X does not have valid feature names")
    # It takes the categorical features all the same.
    warnings.filterwarnings("ignore", "categorical_feature keyword has been found")
    register_converters()
    for dataset in ROWS:
        write_dataset(dataset)
    written = [make_case(case) for case in cases()]
    written.sort(key=lambda entry: entry["name"])
    (FOLDER / "cases.json").write_text(json.dumps(written, indent=1) + "\n")
    (FOLDER / "refused").mkdir(exist_ok=True)
    for name, dataset, pipeline in refused():
        make_refused(name, dataset, pipeline)
    write_onnx("refused/member-v5.onnx", member_of_a_set())


# Data


@dataclass
class Data:
    train: pd.DataFrame
    train_target: np.ndarray
    test: pd.DataFrame
    test_target: np.ndarray
    classes: object  # their names


@cache
def load(dataset):
    if dataset in PREPARED:
        return PREPARED[dataset]()
    bunch = LOADERS[dataset](as_frame=True)
    rows, target = bunch.data.astype("float64"), bunch.target.to_numpy()
    if dataset == "iris-missing":
        missing = np.random.default_rng(SEED).random(rows.shape) < 0.08
        rows = rows.mask(missing)
    names = getattr(bunch, "target_names", None)
    held_out = TEST_ROWS[dataset]
    if held_out is None:
        return Data(rows, target, rows, target, names)
    train, test, train_target, test_target = train_test_split(rows, target, test_size=held_out, random_state=SEED)
    return Data(train, train_target, test, test_target, names)


def iris_peers():
    rows, target = datasets.load_iris(return_X_y=True)
    rows = (rows - rows.mean(0)) / rows.std(0, ddof=1)
    return prepared(*train_test_split(rows, target, test_size=0.25, random_state=0, stratify=target))


def bc_peers():
    rows, target = datasets.load_breast_cancer(return_X_y=True)
    train, test, *targets = train_test_split(rows, target, test_size=0.25, random_state=0)
    mean, deviation = train.mean(0), train.std(0)
    return prepared((train - mean) / deviation, (test - mean) / deviation, *targets)


def digits_peers():
    rows, target = datasets.load_digits(return_X_y=True)
    return prepared(*train_test_split(rows / 16.0, target, test_size=0.2, random_state=0))


PREPARED = {"iris-peers": iris_peers, "bc-peers": bc_peers, "digits-peers": digits_peers}


def prepared(train, test, train_target, test_target):
    names = [f"x{i}" for i in range(train.shape[1])]
    return Data(pd.DataFrame(train, columns=names), train_target, pd.DataFrame(test, columns=names), test_target, None)


def write_dataset(dataset):
    data, path = load(dataset), FOLDER.parent / ROWS[dataset]
    if path.parent == FOLDER:
        write_csv(path.name, data.test.columns, cells(data.test))
    stored = pd.read_csv(path)
    if list(stored.columns) != list(data.test.columns) or not np.array_equal(stored, data.test, equal_nan=True):
        raise SystemExit(f"{path} does not hold the test rows of {dataset}")
    write_csv(f"{dataset}.train.csv", data.train.columns, cells(data.train[:TRAIN_ROWS]))


def cells(rows):
    return [["" if np.isnan(value) else number(value) for value in row] for row in rows.to_numpy()]


# Cases


def make_case(case):
    data = load(case.dataset)
    target, truth = data.train_target, data.test_target
    if is_classifier(case.pipeline):
        target, truth = (relabel(each, data.classes, case.labels) for each in (target, truth))
    case.pipeline.fit(shown(case, data.train), target)

    expected = results(case.pipeline, shown(case, data.test))
    write_expected(case.name, expected, truth)
    model = export(case.pipeline, case.name, inputs(case, data.test), case.options)
    if case.rewrite:
        model = case.rewrite(model)
    write_onnx(f"{case.name}.onnx", model)
    crossed = check(case, model, data.test, expected)
    return describe(case, model, expected, truth, crossed)


def shown(case, rows):
    return rows if case.named_columns else rows.to_numpy()


def results(pipeline, rows):
    """The framework's own results: the label of each row, and arrays with a column per class or target."""
    if not is_classifier(pipeline):
        return {"prediction": columnwise(pipeline.predict(rows))}
    found = {"label": pipeline.predict(rows)}
    scores = decision(pipeline, rows)
    if scores is not None:
        found["decision"] = columnwise(scores)
    found["probability"] = pipeline.predict_proba(rows)
    found["classes"] = pipeline.classes_
    return found


def decision(pipeline, rows):
    model = pipeline[-1]
    for step in pipeline[:-1]:
        rows = step.transform(rows)
    if isinstance(model, XGBClassifier):
        return model.predict(rows, output_margin=True)
    if isinstance(model, LGBMClassifier):
        return model.predict(rows, raw_score=True)
    if isinstance(model, MLPClassifier):
        return last_layer(model, rows)
    return model.decision_function(rows) if hasattr(model, "decision_function") else None


def last_layer(network, rows):
    activation = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "logistic": expit, "identity": lambda x: x}
    hidden = activation[network.activation](rows @ network.coefs_[0] + network.intercepts_[0])
    return hidden @ network.coefs_[1] + network.intercepts_[1]


def describe(case, model, expected, truth, crossed):
    last = case.pipeline[-1]
    entry = {
        "name": case.name,
        "dataset": case.dataset,
        "rows": ROWS[case.dataset],
        "train": f"trees/{case.dataset}.train.csv",
        "dtype": case.dtype,
        "framework": type(last).__module__.split(".")[0],
        "model": type(last).__name__,
        "steps": [type(step).__name__ for _, step in case.pipeline.steps],
        "operators": [node.op_type for node in model.graph.node],
        "trees": count_trees(model),
        "kind": "classifier" if "label" in expected else "regressor",
        "outputs": [kind for kind in ("label", "decision", "probability", "prediction") if kind in expected],
        "zipmap": any(node.op_type == "ZipMap" for node in model.graph.node),
        "named_columns": case.named_columns,
        "client_steps": case.client_steps,
        "crossed": crossed,
    }
    if "label" in expected:
        entry["classes"] = expected["classes"].tolist()
        entry["accuracy"] = accuracy_score(truth, expected["label"])
    else:
        entry["r2"] = r2_score(truth, expected["prediction"])
    return entry


def count_trees(model):
    node = tree_node(model)
    if node is None:
        return 0
    found = attributes(node)
    return len(found["tree_roots"]) if "tree_roots" in found else len(set(found["nodes_treeids"]))


def write_expected(name, expected, truth):
    header, columns = [], []
    if "label" in expected:
        header += ["label", "target"]
        columns += [[str(label) for label in labels.tolist()] for labels in (expected["label"], truth)]
    else:
        truths = columnwise(truth)
        header += ["target"] if truths.shape[1] == 1 else [f"target:{i}" for i in range(truths.shape[1])]
        columns += [[number(value) for value in column] for column in truths.T]
    for kind in ("decision", "probability", "prediction"):
        if kind not in expected:
            continue
        values = expected[kind]
        suffixes = expected["classes"].tolist() if kind == "probability" else range(values.shape[1])
        header += [f"{kind}:{suffix}" for suffix in suffixes]
        columns += [[number(value) for value in column] for column in values.T]
    write_csv(f"{name}.expected.csv", header, zip(*columns, strict=True))


# Export


def register_converters():
    classifier, regressor = calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
    zipmap = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for model, name, shape, convert, options in [
        (XGBClassifier, "XGBoostXGBClassifier", classifier, convert_xgboost, zipmap),
        (XGBRegressor, "XGBoostXGBRegressor", regressor, convert_xgboost, None),
        (LGBMClassifier, "LightGbmLGBMClassifier", classifier, convert_lightgbm, zipmap),
        (LGBMRegressor, "LightGbmLGBMRegressor", regressor, convert_lightgbm, {"split": None}),
    ]:
        update_registered_converter(model, name, shape, convert, options=options)


def export(pipeline, name, initial_types, options):
    # Without a name the graph gets a random one, and no two runs would agree.
    options = {id(pipeline[-1]): options} if options else None
    return convert_sklearn(pipeline, name=name, initial_types=initial_types, target_opset=OPSET, options=options)


def make_refused(name, dataset, pipeline):
    data = load(dataset)
    pipeline.fit(data.train.to_numpy(), data.train_target)
    model = export(pipeline, name, [("X", FloatTensorType([None, data.train.shape[1]]))], None)
    write_onnx(f"refused/{name}.onnx", model)
    labels = session(model).run(None, {"X": data.test.to_numpy().astype("float32")})[0]
    agreed = (labels == pipeline.predict(data.test.to_numpy())).mean()
    # They decide by thresholds, which a float32 may miss by its last digit.
    if agreed < 0.97:
        raise SystemExit(f"refused/{name}: {agreed:.1%} of the labels agree")


# Operators that no exporter writes yet

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER"]


def with_tensors(model):
    """The same operator with the attributes that ai.onnx.ml 3 has for doubles."""
    for attribute in tree_node(model).attribute:
        if attribute.name in ("nodes_values", "nodes_hitrates", "target_weights"):
            values = tensor(attribute.floats, TensorProto.DOUBLE)
            attribute.CopyFrom(helper.make_attribute(f"{attribute.name}_as_tensor", values))
    for opset in model.opset_import:
        if opset.domain == "ai.onnx.ml":
            opset.version = 3
    return model


def with_one_operator(model):
    """The same graph with the TreeEnsemble of ai.onnx.ml 5 for predictions, or for probabilities of 0, 1, ..."""
    node = tree_node(model)
    old = attributes(node)
    given = model.graph.input[0]
    element = given.type.tensor_type.elem_type
    classifier = node.op_type == "TreeEnsembleClassifier"
    targets = len(old["classlabels_int64s"]) if classifier else old["n_targets"]
    nodes = [tree_ensemble(old, element, given.name, "variable", targets)]
    if not classifier:
        output = helper.make_tensor_value_info("variable", element, [None, targets])
        return modern_model(nodes, model.graph.name, [given], [output])
    # Nodes of their own: of the operator's own softmax, 1 in the standard, onnxruntime 1.32 makes a logistic function.
    nodes.append(helper.make_node("Softmax", ["variable"], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    probabilities = helper.make_tensor_value_info("probabilities", element, [None, targets])
    return modern_model(nodes, model.graph.name, [given], [label, probabilities])


def modern_model(nodes, name, given, outputs):
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)]
    graph = helper.make_graph(nodes, name, given, outputs)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model


def tree_ensemble(old, element, given, output, targets):
    keys = list(zip(old["nodes_treeids"], old["nodes_nodeids"], strict=True))
    place = {key: i for i, key in enumerate(keys)}
    leaf = leaves(old)
    inner = {key: n for n, key in enumerate(key for key in keys if key not in leaf)}
    outer = {key: n for n, key in enumerate(key for key in keys if key in leaf)}

    def of_inner(name):
        return [old[name][place[key]] for key in inner]

    def children(side):
        found = [(key[0], old[f"nodes_{side}nodeids"][place[key]]) for key in inner]
        return {
            f"nodes_{side}nodeids": [(outer if key in outer else inner)[key] for key in found],
            f"nodes_{side}leafs": [int(key in outer) for key in found],
        }

    return helper.make_node(
        "TreeEnsemble",
        [given],
        [output],
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function=["AVERAGE", "SUM"].index(old.get("aggregate_function", "SUM")),
        tree_roots=[inner[key] for key in inner if key[1] == 0],
        nodes_featureids=of_inner("nodes_featureids"),
        nodes_modes=tensor([MODES.index(mode) for mode in of_inner("nodes_modes")], TensorProto.UINT8),
        nodes_splits=tensor(of_inner("nodes_values"), element),
        **children("true"),
        **children("false"),
        leaf_targetids=[leaf[key][0] for key in outer],
        leaf_weights=tensor([leaf[key][1] for key in outer], element),
    )


def leaves(old):
    """Target and weight of every leaf, by tree and node. A leaf has one target; a base value goes into one tree."""
    kind = "class" if "class_ids" in old else "target"
    parts = (old[f"{kind}_{part}"] for part in ("treeids", "nodeids", "ids", "weights"))
    base, taker = dict(enumerate(old.get("base_values", []))), {}
    found = {}
    for tree, node, target, weight in zip(*parts, strict=True):
        if taker.setdefault(target, tree) == tree:
            weight += base.get(target, 0)
        if found.setdefault((tree, node), (target, weight)) != (target, weight):
            raise SystemExit("a leaf of TreeEnsemble has one target")
    return found


def member_of_a_set():
    """One node that asks whether feature 0 is in {1, 3}."""
    node = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["variable"],
        domain="ai.onnx.ml",
        n_targets=1,
        tree_roots=[0],
        nodes_featureids=[0],
        nodes_modes=tensor([MODES.index("BRANCH_MEMBER")], TensorProto.UINT8),
        nodes_splits=tensor([0], TensorProto.FLOAT),
        membership_values=tensor([1, 3, np.nan], TensorProto.FLOAT),
        nodes_truenodeids=[0],
        nodes_trueleafs=[1],
        nodes_falsenodeids=[1],
        nodes_falseleafs=[1],
        leaf_targetids=[0, 0],
        leaf_weights=tensor([1, -1], TensorProto.FLOAT),
    )
    given, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("X", "variable"))
    return modern_model([node], "member-v5", [given], [output])


def tensor(values, element):
    return numpy_helper.from_array(np.array(values, helper.tensor_dtype_to_np_dtype(element)))


def tree_node(model):
    return next((node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")), None)


def attributes(node):
    return {attribute.name: plain(helper.get_attribute_value(attribute)) for attribute in node.attribute}


def plain(value):
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value).tolist()
    if isinstance(value, bytes):
        return value.decode()
    return [plain(each) for each in value] if isinstance(value, list) else value


# The check of what was exported


def check(case, model, rows, expected):
    """Returns how many rows went another way at a threshold than they do in the framework."""
    outputs = run(case, model, rows)
    # The tree operators give float32 whatever their inputs are.
    tolerance = 1e-12 if case.dtype == "float64" and tree_node(model) is None else 1e-5
    if "prediction" in expected:
        got, wanted = outputs[0].reshape(expected["prediction"].shape), expected["prediction"]
        same = np.full(len(rows), True)
    else:
        got, wanted = score_columns(outputs[1:], expected["classes"]), expected["probability"]
        same = label_text(case, outputs[0]) == label_text(case, expected["label"])
    if got.shape != wanted.shape:
        raise SystemExit(f"{case.name}: the graph gives scores of shape {got.shape}, not {wanted.shape}")
    error = np.abs(got - wanted).max(axis=1) / max(1.0, np.abs(wanted).max())
    differs = ~(error <= tolerance) | ~same
    if (differs & ~on_threshold(case, rows)).any() or differs.mean() > 0.05:
        raise SystemExit(f"{case.name}: {differs.sum()} rows differ, by up to {error.max()} of the largest value")
    if "decision" in expected:
        check_decision(case, model, rows, expected, ~differs, tolerance)
    return int(differs.sum())


def check_decision(case, model, rows, expected, same, tolerance):
    """The raw scores, base values included: probabilities alone would not show what a softmax cancels."""
    scores = expected["decision"]
    binary = scores.shape[1] == 1
    implied = np.hstack([expit(-scores), expit(scores)]) if binary else softmax(scores, axis=1)
    error = np.abs(implied - expected["probability"]).max()
    if model.graph.node[0].op_type != "TreeEnsemble" and tree_node(model) is not None and not binary:
        raw = onnx.ModelProto()
        raw.CopyFrom(model)
        last = tree_node(raw)
        kept = [attribute for attribute in last.attribute if attribute.name != "post_transform"]
        del last.attribute[:]
        last.attribute.extend(kept)
        got = score_columns(run(case, raw, rows)[1:], expected["classes"])
        error = max(error, np.abs(got - scores)[same].max())
    if not error <= tolerance:
        raise SystemExit(f"{case.name}: the raw scores are off by {error}")


def on_threshold(case, rows):
    """Which rows some node sends elsewhere when every feature moves by a few steps of a float32."""
    if isinstance(case.pipeline[-1], (MLPClassifier, MLPRegressor)):
        return np.full(len(rows), False)
    step = 2.0**-21 * rows.abs()
    low, high = (results(case.pipeline, shown(case, moved)) for moved in (rows - step, rows + step))
    kind = "prediction" if "prediction" in low else "probability"
    return (low[kind] != high[kind]).any(axis=1)


def run(case, model, rows):
    rows = rows.astype(case.dtype)
    names = [value.name for value in model.graph.input]
    feed = (
        {name: rows.iloc[:, [i]].to_numpy() for i, name in enumerate(names)}
        if case.named_columns
        else {"X": rows.to_numpy()}
    )
    return session(runnable(model)).run(None, feed)


def runnable(model):
    """For doubles skl2onnx declares the outputs of a tree as doubles, which they never are."""
    last = model.graph.node[-1]
    if last.op_type not in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
        return model
    declared = onnx.ModelProto()
    declared.CopyFrom(model)
    for output in declared.graph.output:
        if output.type.tensor_type.elem_type == TensorProto.DOUBLE:
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    return declared


def label_text(case, labels):
    # ONNX has no boolean labels here: skl2onnx writes 0 and 1.
    return np.array([str(bool(label) if case.labels == "bool" else label) for label in labels.tolist()])


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


if __name__ == "__main__":
    main()
