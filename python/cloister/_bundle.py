"""From a model of scikit-learn to what an enclave serves."""

import os
import warnings
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister import _native
from cloister._description import Description, described
from cloister._errors import BadInput
from cloister._rows import Rows, columns, is_frame, is_numeric, numbers
from cloister._stored import PathLike


class Bundle:
    """A model that an enclave can serve.

    Attributes
    ----------
    description : Description
        What it takes, gives and promises.
    name, version, digest : str
        Which it is; a policy accepts it by the digest.
    bound : float
        Every logit is within this of the original model's, proven; of trees and networks, of the model's on its bits.
    report : str
        Where the bound comes from, what bits change of trees and networks, and how the model fared on random rows.
    """

    def __init__(self, native: _native.Bundle) -> None:
        self._bytes = native.to_bytes()
        self.description: Description = described(native.description())
        self.report = native.report()

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def version(self) -> str:
        return self.description.version

    @property
    def digest(self) -> str:
        return self.description.digest

    @property
    def bound(self) -> float:
        return self.description.bound

    def save(self, path: PathLike) -> Path:
        """Writes it, by convention to NAME.cloister."""
        file = Path(path)
        file.write_bytes(self._bytes)
        return file

    def __bytes__(self) -> bytes:
        return self._bytes

    def __repr__(self) -> str:
        return f"<Bundle {self.name} {self.version}: every logit within {self.bound:.1e}, {self.digest[:19]}…>"


def import_model(
    source: Any,
    *,
    ranges: Rows | None = None,
    name: str | None = None,
    version: str = "1",
    precision: float = 1e-3,
    grid: Mapping[str, float] | None = None,
    model_privacy: float | None = None,
    budget: int | None = None,
    public_thresholds: bool = False,
    out: PathLike | None = None,
) -> Bundle:
    """Makes a bundle of a linear model, trees or a network, with a proven bound on every logit.

    Parameters
    ----------
    source : estimator, path, bytes or onnx.ModelProto
        A fitted estimator or pipeline of scikit-learn, which skl2onnx exports in float64; or what it or onnxmltools,
        for XGBoost and LightGBM, wrote.
    ranges : array or frame, optional
        Rows whose columns give the ranges of the features, widened by 10 % of the span on each side: those of the
        estimator, by name or position, or of a frame for ONNX all that have numbers. Without it, what the first scaler
        says: 8 standard deviations around the mean, or the least and greatest value. Features that have no names in
        the estimator get those of the frame. Of trees and networks, the first 2000 rows also say into how many bits
        features are cut: as few as leave their labels what they were. `report` says what that changes.
    name : str, optional
        What clients ask for; by default the name of the file `out`.
    version : str, default="1"
        What clients see.
    precision : float, default=1e-3
        The largest distance of a logit from the model's own, down to 1e-9.
    grid : dict, optional
        Columns whose values are multiples of a step away from their least value in `ranges`.
    model_privacy : float, optional
        How much the noise of replies may tell of the model beside its logits, for each row: a probability.
    budget : int, optional
        The most logits that an enclave returns of this model, from boot to end.
    public_thresholds : bool, default=False
        Whether features are cut at the thresholds of trees themselves, which clients then know: every path is the
        model's own, and requests are shorter.
    out : path, optional
        Where it is written, too; by convention NAME.cloister.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> fitted = LogisticRegression(max_iter=1000).fit(X, y)
    >>> bundle = cloister.import_model(fitted, ranges=X, name="iris")
    >>> bundle.name, bundle.bound <= 1e-3
    ('iris', True)
    """
    names = None
    if hasattr(source, "fit"):
        onnx, names = _converted(source), _feature_names(source)
    elif hasattr(source, "SerializeToString"):
        onnx = source.SerializeToString()
    elif isinstance(source, str | os.PathLike):
        onnx = Path(source).read_bytes()
    elif isinstance(source, bytes):
        onnx = source
    else:
        raise BadInput(
            f"a model is made of no {type(source).__name__}",
            "usage",
            "Give a fitted estimator of scikit-learn, the path or the bytes of an ONNX file, or an onnx.ModelProto, as "
            "onnxmltools makes of models of XGBoost and LightGBM.",
        )
    if name is None:
        name = "model" if out is None else Path(os.fspath(out)).stem
    declared = rows = None
    if ranges is not None:
        names, rows = _data(ranges, names)
        declared = _with_grid(_ranges(names, rows), grid or {})
    elif grid:
        raise BadInput("a grid needs ranges", "usage", "Give ranges=X, whose least values the grid begins with.")
    native = _native.import_onnx(
        onnx, name, version, precision, model_privacy, budget, declared, rows, public_thresholds, names
    )
    bundle = Bundle(native)
    if hasattr(source, "classes_"):
        _check_labels(source.classes_, bundle.description.labels)
    if out is not None:
        bundle.save(out)
    return bundle


_Range = tuple[str, float, float, float | None]


def _data(rows: Rows, names: list[str] | None) -> tuple[list[str], npt.NDArray[np.float64]]:
    """What the columns are called, and the matrix that they make up."""
    if is_frame(rows):
        frame: Any = rows
        names = names or [str(column) for column in frame.columns if is_numeric(frame[column])]
        return names, np.transpose(columns(frame, names))
    array = numbers(rows)
    width = array.shape[1]
    names = names or [f"x{index}" for index in range(width)]
    if width != len(names):
        raise BadInput(f"ranges has {width} columns, the model {len(names)}", "columns", "Give the columns of X.")
    return names, array


def _ranges(names: list[str], rows: npt.NDArray[np.float64]) -> list[_Range]:
    """The name, the least and the greatest value of each column; NaN is a value that is missing."""
    return [_range(name, column) for name, column in zip(names, rows.T, strict=True)]


def _range(name: str, column: npt.NDArray[np.float64]) -> _Range:
    present = column[~np.isnan(column)]
    if present.size == 0:
        raise BadInput(f"column {name!r} is entirely NaN", "no_numbers", "Give at least one value.")
    if not np.isfinite(present).all():
        raise BadInput(f"column {name!r} has infinite values", "not_finite", "Give finite numbers, or NaN.")
    return name, float(present.min()), float(present.max()), None


def _with_grid(ranges: list[_Range], grid: Mapping[str, float]) -> list[_Range]:
    unknown = set(grid) - {name for name, *_ in ranges}
    if unknown:
        raise BadInput(
            f"the grid names a column that is not there: {unknown.pop()!r}", "no_column", "Name one of ranges."
        )
    return [(name, low, high, grid.get(name)) for name, low, high, _ in ranges]


def _check_labels(classes: Iterable[Any], labels: Iterable[Any]) -> None:
    """ONNX narrows some silently: integers to 32 bits."""
    for given, label in zip_longest(classes, labels):
        if given != label:
            raise BadInput(
                f"the class {given} becomes {label} in ONNX",
                "changed_label",
                "Number the classes from 0, or use strings.",
            )


def _feature_names(estimator: Any) -> list[str] | None:
    """If it was fitted on a frame."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _converted(estimator: Any) -> bytes:
    """A fitted estimator as skl2onnx exports it in float64, but for what trees compare."""
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType
        from sklearn.compose import ColumnTransformer
    except ImportError as error:
        raise BadInput(
            f"an estimator is exported by skl2onnx, which cannot be imported: {error}",
            "no_skl2onnx",
            "pip install skl2onnx; or export the estimator elsewhere, and give the ONNX file.",
        ) from None
    if not hasattr(estimator, "n_features_in_"):
        raise BadInput(f"{type(estimator).__name__} is not fitted", "not_fitted", "Call fit(X, y) first.")
    # Only what finds its columns by name needs them one by one.
    parts = [estimator, *estimator.get_params().values()]
    if hasattr(estimator, "feature_names_in_") and any(isinstance(part, ColumnTransformer) for part in parts):
        inputs = [(str(name), DoubleTensorType([None, 1])) for name in estimator.feature_names_in_]
    else:
        inputs = [("X", DoubleTensorType([None, estimator.n_features_in_]))]
    options = _options(_final(estimator))
    with warnings.catch_warnings():
        # Of what skl2onnx itself reads.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            model = convert_sklearn(estimator, "model", inputs, target_opset=_OPERATORS, options=options)
        # It has no class of errors, and raises whatever fails.
        except Exception as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise BadInput(
                f"{type(estimator).__name__} cannot be exported by skl2onnx: {why}", "not_exported", _TO_EXPORT
            ) from error
    _round_before_trees(model.graph)
    if getattr(getattr(estimator, "classes_", None), "dtype", None) == np.bool_:
        _say_booleans(model)
    return bytes(model.SerializeToString())


_OPERATORS = {"": 18, "ai.onnx.ml": 1}
"""The versions in which all that an import knows is tested."""


_TO_EXPORT = (
    "Give a linear model, trees or a network of scikit-learn, and before it only steps that skl2onnx exports; of "
    "XGBoost and LightGBM, what onnxmltools exports. Text columns cannot be encrypted: encode them before, e.g. with "
    "pandas.get_dummies."
)


def _final(estimator: Any) -> Any:
    """What predicts, at the end of pipelines and searches."""
    if hasattr(estimator, "steps"):
        return _final(estimator[-1])
    return _final(estimator.best_estimator_) if hasattr(estimator, "best_estimator_") else estimator


def _options(final: Any) -> dict[int, dict[str, bool]] | None:
    """Scores as a matrix. What skl2onnx exports in float64 only without probabilities is asked for that."""
    if type(final).__name__ in ("LinearSVC", "RidgeClassifier", "RidgeClassifierCV"):
        return {id(final): {"raw_scores": True}}
    return {id(final): {"zipmap": False}} if hasattr(final, "classes_") else None


def _round_before_trees(graph: Any) -> None:
    """Has trees compare float32 numbers, as scikit-learn's do whatever they are given."""
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            rounded = f"{node.input[0]}_float32_{len(nodes)}"
            nodes.append(helper.make_node("Cast", [node.input[0]], [rounded], to=TensorProto.FLOAT))
            node.input[0] = rounded
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _say_booleans(model: Any) -> None:
    """Boolean labels, which skl2onnx writes as 0 and 1, become what they were."""
    from onnx import TensorProto, helper

    label = model.graph.output[0]
    inner = f"{label.name}_0_1"
    for node in model.graph.node:
        node.output[:] = [inner if name == label.name else name for name in node.output]
        node.input[:] = [inner if name == label.name else name for name in node.input]
    model.graph.node.append(helper.make_node("Cast", [inner], [label.name], to=TensorProto.BOOL))
    label.type.tensor_type.elem_type = TensorProto.BOOL
