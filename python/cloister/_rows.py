"""Rows as people have them, and as they are encrypted: a matrix of float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister._errors import BadInput

Rows = npt.ArrayLike
"""Of the shape (rows, features): an array, a list of rows, a sparse matrix, or a frame of pandas or polars."""

_MOST_NAMES = 20


def matrix(X: Rows, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """The columns `names` of a frame, whatever their order; of anything else as many columns, by position."""
    if is_frame(X):
        return np.column_stack(columns(X, names))
    array = numbers(X)
    if array.shape[1] != len(names):
        raise BadInput(
            f"X has {array.shape[1]} features, but the model takes {len(names)}",
            "wrong_width",
            f"Give one column for each of: {_listed(names)}.",
        )
    return array


def columns(frame: Any, names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Columns of a frame of pandas or polars."""
    found = [str(name) for name in frame.columns]
    missing = [name for name in names if name not in found]
    if len(missing) == len(names) == len(found):
        raise BadInput(
            f"the model's features have no names of the frame: they are {_listed(names)}; it has {_listed(found)}",
            "wrong_columns",
            "Pass X.to_numpy() to go by position, or name the columns as the model does.",
        )
    if missing:
        raise BadInput(
            f"the frame has no column {_listed(missing)}; it has {_listed(found)}",
            "wrong_columns",
            "Name the columns as the model does; their order does not matter. X.to_numpy() is matched by position.",
        )
    _check_distinct([name for name in found if name in set(names)])
    if len(frame) == 0:
        raise _empty()
    # Names that are no texts, as the integers of pd.DataFrame(array).
    originals = dict(zip(found, frame.columns, strict=True))
    return [_column(frame[originals[name]], name) for name in names]


def numbers(X: Rows) -> npt.NDArray[np.float64]:
    """A matrix of whatever is no frame."""
    if hasattr(X, "collect"):
        raise BadInput("X is lazy", "lazy", "Give X.collect().")
    if hasattr(X, "__dataframe__"):
        raise BadInput("X is a frame of a kind that is not read", "wrong_frame", "Give X.to_pandas().")
    if isinstance(X, np.ma.MaskedArray):
        raise BadInput("X is masked", "masked", "Give X.filled(numpy.nan), or X.data where nothing is hidden.")
    if hasattr(X, "toarray"):
        X = X.toarray()
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise BadInput(f"X is no matrix: {error}", "wrong_shape", "Give rows of equal length.") from None
    if array.ndim != 2:
        raise BadInput(
            f"X has {array.ndim} dimensions, not 2",
            "wrong_shape",
            "A single row is X.reshape(1, -1), a single feature X.reshape(-1, 1).",
        )
    if array.shape[0] == 0:
        raise _empty()
    return np.ascontiguousarray(_floats(array, "X"))


def is_frame(X: Any) -> bool:
    """Whether columns have names."""
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def is_numeric(series: Any) -> bool:
    """Whether a column of a frame has numbers."""
    kind = getattr(series.dtype, "kind", None)
    return bool(series.dtype.is_numeric()) if kind is None else kind in "iuf"


def _column(series: Any, name: str) -> npt.NDArray[np.float64]:
    # The numeric types that pandas has beside numpy's have a missing value of their own.
    if getattr(series.dtype, "kind", None) in tuple("iufb") and not isinstance(series.dtype, np.dtype):
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return _floats(series.to_numpy(), f"column {name!r}")


def _floats(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.float64]:
    if array.dtype.kind not in "iufb":
        raise BadInput(
            f"{what} is of type {array.dtype}, not of numbers",
            "not_numbers",
            "Text columns cannot be encrypted: encode them before, e.g. with pandas.get_dummies, as the model was "
            "trained. Write NaN for what is missing, and convert: X.astype(float).",
        )
    return array.astype(np.float64, copy=False)


def _check_distinct(names: Sequence[str]) -> None:
    double = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if double is not None:
        raise BadInput(f"two columns are named {double!r}", "duplicate_column", "Rename or remove one of the two.")


def _empty() -> BadInput:
    return BadInput("X has no rows", "no_rows", "Give at least one row.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(map(repr, names[:_MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
