"""Makes a text classifier: which package of the standard library does a docstring come from?

Run it from any folder; it writes its outputs beside itself:

    text.onnx          the LogisticRegression alone, in float32, on a vector of TF-IDF weights
    text.csv           24 test rows of TF-IDF weights; the header is the vocabulary
    text.expected.csv  scikit-learn's float64 results on these rows: `label`, `decision:0..`, `probability:CLASS`

The texts are the docstrings of the Python 3.11 standard library, of the packages below and all that they define, read
from the interpreter that runs this script, so another patch release gives other rows. They are part of Python, under
the PSF License Agreement (https://docs.python.org/3.11/license.html): Copyright (c) 2001 Python Software Foundation;
All Rights Reserved. The outputs hold nothing of theirs but the vocabulary, single words in alphabetical order.

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
import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).resolve().parent
SEED = 20261122
OPSET = {"": 18, "ai.onnx.ml": 1}
ROWS = 24

# Topics, each with the packages and modules whose docstrings belong to it.
TOPICS = {
    "concurrency": [
        "asyncio",
        "concurrent",
        "multiprocessing",
        "threading",
        "queue",
        "sched",
        "subprocess",
        "selectors",
    ],
    "files": [
        "tarfile",
        "zipfile",
        "shutil",
        "pathlib",
        "os",
        "tempfile",
        "glob",
        "gzip",
        "bz2",
        "lzma",
        "io",
        "fileinput",
    ],
    "language": [
        "ast",
        "inspect",
        "typing",
        "dis",
        "tokenize",
        "importlib",
        "traceback",
        "dataclasses",
        "enum",
        "types",
    ],
    "mail": ["email", "mailbox", "smtplib", "imaplib", "poplib", "nntplib", "mimetypes"],
    "numbers": ["decimal", "fractions", "statistics", "random", "math", "cmath", "numbers", "datetime", "calendar"],
    "web": ["http", "urllib", "xml", "html", "wsgiref", "xmlrpc", "socketserver", "ssl", "ftplib"],
}


def main():
    texts, topics = collect()
    train, test, train_topics, test_topics = train_test_split(
        texts, topics, test_size=0.2, random_state=SEED, stratify=topics
    )
    vectorizer = TfidfVectorizer(token_pattern=r"[a-z][a-z_]+", min_df=2, max_features=5000, sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=1000, random_state=SEED)
    model.fit(vectorizer.fit_transform(train).toarray(), train_topics)
    weights = vectorizer.transform(test).toarray()
    print(f"{len(train)} training texts, {weights.shape[1]} words, accuracy {model.score(weights, test_topics):.3f}")

    rows = weights[:ROWS]
    write_csv("text.csv", vectorizer.get_feature_names_out(), ([number(value) for value in row] for row in rows))
    write_expected(model, rows)
    check(write_onnx(model), model, rows)


# Texts


def collect():
    """Every distinct docstring that belongs to one topic only, in a fixed order."""
    found = {}
    for topic, packages in TOPICS.items():
        for text in {text for package in packages for text in docstrings(package)}:
            found.setdefault(text, set()).add(topic)
    pairs = sorted((text, *topics) for text, topics in found.items() if len(topics) == 1 and len(text.split()) >= 8)
    return [text for text, _ in pairs], [topic for _, topic in pairs]


def docstrings(package):
    for module in modules(package):
        yield from filter(None, (inspect.getdoc(thing) for thing in documented(module)))


def modules(name):
    """A module and, if it is a package, all below it that can be imported here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            module = importlib.import_module(name)
        except ImportError:
            return
        yield module
        for below in pkgutil.iter_modules(getattr(module, "__path__", [])):
            # A __main__ would start its program.
            if below.name != "__main__":
                yield from modules(f"{name}.{below.name}")


def documented(module):
    """The module, its own functions and classes, and their methods."""
    yield module
    for thing in vars(module).values():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isroutine(thing):
            yield thing
        elif inspect.isclass(thing):
            yield thing
            yield from (method for method in vars(thing).values() if inspect.isroutine(method))


# Outputs


def write_expected(model, rows):
    classes = model.classes_.tolist()
    header = ["label", *(f"decision:{i}" for i in range(len(classes))), *(f"probability:{name}" for name in classes)]
    values = np.hstack([model.decision_function(rows), model.predict_proba(rows)]).tolist()
    write_csv(
        "text.expected.csv", header, ([label, *map(repr, row)] for label, row in zip(model.predict(rows), values))
    )


def write_onnx(model):
    graph = convert_sklearn(
        model,
        name="text",
        initial_types=[("X", FloatTensorType([None, model.n_features_in_]))],
        target_opset=OPSET,
    )
    # skl2onnx lists the operator sets in the order of a hash that differs from run to run.
    graph.opset_import.sort(key=lambda opset: opset.domain)
    exported = graph.SerializeToString(deterministic=True)
    (FOLDER / "text.onnx").write_bytes(exported)
    return exported


def check(exported, model, rows):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    labels, maps = session.run(None, {"X": rows.astype("float32")})
    probabilities = np.array([[row[name] for name in model.classes_] for row in maps])
    error = np.abs(probabilities - model.predict_proba(rows)).max()
    if (np.array(labels) != model.predict(rows)).any() or not error <= 1e-5:
        raise SystemExit(f"the graph disagrees with scikit-learn, by {error}")


def number(value):
    # Nearly all are zero, and 5,000 times "0.0" a row would double the file.
    return "0" if value == 0 else repr(float(value))


def write_csv(name, header, rows):
    with open(FOLDER / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
