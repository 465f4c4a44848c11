"""Rows as people have them."""

import cloister
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse

NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]


@pytest.fixture(scope="module")
def model(world):
    with world.connect() as client:
        yield client.model()


def test_columns_of_frames_are_found_by_name(model, X):
    expected = model.predict(X)
    shuffled = pd.DataFrame(X, columns=NAMES)[NAMES[::-1]].assign(species="unknown")
    for frame in [
        shuffled,
        shuffled.convert_dtypes(),
        shuffled.astype({name: "float32" for name in NAMES}),
        pl.from_pandas(shuffled.drop(columns="species")),
        pl.DataFrame(X, schema=NAMES).with_columns(pl.lit("x").alias("more")),
    ]:
        assert (model.predict(frame) == expected).all()
    with pytest.raises(cloister.BadInput, match="has no column 'petal length \\(cm\\)'; it has ") as caught:
        model.predict(shuffled.drop(columns="petal length (cm)"))
    assert caught.value.code == "wrong_columns"
    with pytest.raises(cloister.BadInput, match="two columns are named 'sepal width"):
        model.predict(pd.concat([shuffled, shuffled[["sepal width (cm)"]]], axis=1))
    for texts in [shuffled.astype({NAMES[0]: str}), pl.DataFrame(X, schema=NAMES).cast({NAMES[0]: pl.String})]:
        with pytest.raises(cloister.BadInput, match="column 'sepal length \\(cm\\)' is of type") as caught:
            model.predict(texts)
        assert caught.value.remedy.startswith("Text columns cannot be encrypted: encode them before")


def test_columns_may_be_named_by_integers(model, X):
    renamed = cloister._rows.matrix(pd.DataFrame(X)[[3, 1, 0, 2]], ["0", "1", "2", "3"])
    assert (renamed == X).all()
    with pytest.raises(cloister.BadInput, match="^the model's features have no names of the frame") as caught:
        model.predict(pd.DataFrame(X))
    assert caught.value.code == "wrong_columns" and caught.value.remedy.startswith("Pass X.to_numpy()")
    with pytest.raises(cloister.BadInput, match="has no column"):
        model.predict(pd.DataFrame(X[:, :3]))


def test_missing_values_of_frames_are_missing_values(model, X):
    frame = pd.DataFrame(X, columns=NAMES).convert_dtypes()
    frame.loc[3, NAMES[1]] = pd.NA
    for missing in [frame, pl.DataFrame(X, schema=NAMES).with_columns(pl.lit(None).cast(pl.Float64).alias(NAMES[1]))]:
        with pytest.raises(cloister.BadInput, match='column "sepal width \\(cm\\)": NaN'):
            model.predict(missing)


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        np.asfortranarray,
        lambda X: X.astype(np.float32),
        lambda X: X.astype(">f8"),
        lambda X: X[::-1][::-1],
        scipy.sparse.csr_matrix,
        scipy.sparse.csr_array,
    ],
)
def test_arrays_are_matched_by_position(model, X, convert):
    assert (model.predict(convert(X)) == model.predict(X)).all()


def test_integers_and_booleans_are_numbers(model):
    labels = model.predict([[5, 3, 1, 1]])
    assert labels == model.predict(np.array([[5, 3, 1, 1]], dtype=np.uint8))
    assert labels == model.predict(np.array([[5.0, 3.0, True, True]]))


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([5.1, 3.5, 1.4, 0.2], "wrong_shape", "1 dimensions"),
        ([[5.1, 3.5, 1.4]], "wrong_width", "3 features, but the model takes 4"),
        ([[5.1, 3.5, 1.4, 0.2], [1.0]], "wrong_shape", "no matrix"),
        (np.empty((0, 4)), "no_rows", "no rows"),
        ([[5.1, 3.5, 1.4, None]], "not_numbers", "type object"),
        ([["5.1", "3.5", "1.4", "0.2"]], "not_numbers", "type <U3"),
        ([[5.1, 3.5, 1.4, 0.2j]], "not_numbers", "type complex128"),
        ([[5.1, 3.5, 1.4, np.nan]], "not_finite", 'row 0, column "petal width \\(cm\\)": NaN'),
        ([[5.1, 3.5, 1.4, 0.2], [5.1, 3.5, 1.4, 99.0]], "out_of_range", 'row 1, column "petal width \\(cm\\)": 99'),
    ],
)
def test_what_is_no_matrix_of_numbers_in_range_is_refused(model, rows, code, message):
    with pytest.raises(ValueError, match=message) as caught:
        model.predict(rows)
    assert isinstance(caught.value, cloister.BadInput) and caught.value.code == code
    assert "What to do: " in str(caught.value)


def test_clipped_rows_are_answered_and_never_certain(model, X):
    rows = X.copy()
    rows[7, 3] = 99.0
    before = rows.copy()
    inference = model.infer(rows, clip=True)
    assert not inference.certain[7] and inference.certain[:7].all()
    assert (rows == before).all(), "what was given stays as it is"


def test_what_is_hidden_or_named_in_another_way_is_not_taken_as_it_lies(client):
    class Table:
        columns = ["a"]

        def __dataframe__(self):
            raise AssertionError

    with pytest.raises(cloister.BadInput, match="masked"):
        client.predict(np.ma.masked_array([[5.1, 3.5, 1.4, 0.2]], mask=[[True, False, False, False]]))
    with pytest.raises(cloister.BadInput, match="to_pandas"):
        client.predict(Table())
