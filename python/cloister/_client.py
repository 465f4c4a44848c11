"""An evaluator that was verified, and its models."""

import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from cloister import _native
from cloister._description import Description, described
from cloister._errors import BadInput, ChannelWarning, NotOffered, SimulatedWarning, Step, printable
from cloister._progress import Progress, told
from cloister._rows import Rows, matrix
from cloister._stored import SIMULATED, Evidence, PathLike, read_policy

_MAX_CONNECTIONS = 16


@dataclass(frozen=True)
class ServedModel:
    """A model that an enclave serves, and whether the policy accepts it."""

    name: str
    version: str
    digest: str
    accepted: bool


@dataclass(frozen=True)
class Timing:
    """Where the time went, in seconds, over all requests; several of them run at a time."""

    encrypt: float
    exchange: float
    receipt: float
    decrypt: float


@dataclass(frozen=True)
class Inference:
    """All that is known of some rows.

    Attributes
    ----------
    labels : ndarray of shape (n_rows,) or None
        The predicted classes; none of a regression.
    values : ndarray of shape (n_rows,) or (n_rows, n_targets) or None
        What a regression predicts; none of a classifier.
    logits : ndarray of shape (n_rows, n_logits)
        Each within the model's bound of the original's.
    probabilities : ndarray of shape (n_rows, n_classes) or None
        In the order of `Model.classes_`; none without a `predict_proba`.
    certain : ndarray of bool of shape (n_rows,)
        Whether no change of the logits by the bound makes the label another. Clipped rows never are.
    bytes : tuple of int
        Those of the encrypted messages, sent and received.
    timing : Timing
        Where the time went.
    """

    labels: npt.NDArray[Any] | None
    values: npt.NDArray[np.float64] | None
    logits: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64] | None
    certain: npt.NDArray[np.bool_]
    bytes: tuple[int, int]
    timing: Timing


class Client:
    """A connection to an evaluator that was verified before anything else; nothing was sent to it but a nonce.

    Parameters
    ----------
    endpoint : str, optional
        Where the service is, ``https://HOST:PORT``. TLS ends in the enclave. Or else `gateway`, or `sagemaker`.
    policy : path
        What the evaluator must prove. Get it from whoever publishes the release, never from the endpoint.
    gateway : str, optional
        A load balancer or API gateway that ends TLS before the enclave, which the policy must allow.
    sagemaker : str, optional
        The name of a SageMaker endpoint, in ``AWS_REGION`` and with AWS's credentials of the environment.
    objects : str, optional
        Behind `gateway` or `sagemaker`: where encrypted messages lie, ``s3://BUCKET/PREFIX``.
    token : str, optional
        By which the enclave knows this client. It goes to the verified enclave only.
    token_file : path, optional
        The file that `token` is in.
    model : str, optional
        The model that methods mean which name none. With one accepted model it is that.
    connections : int, default=2
        Connections at most for each model, every one verified by itself.

    Attributes
    ----------
    steps : list of Step
        What was verified.
    release, module_id : str
        The release that the enclave runs, and which enclave it is.
    attested : datetime
        When its document was made.
    simulated : bool
        Whether it is no real enclave.
    channel : {"tls-exporter", "none"}
        How it is reached.

    Raises
    ------
    NotVerified
        The evaluator does not prove what the policy asks for; the error names the step.
    Unreachable, Refused, BadInput
        Nobody answers; the service does not; what was given cannot be used.

    Examples
    --------
    >>> with cloister.Client(ENDPOINT, policy="policy.toml") as client:
    ...     print(client.release, [model.name for model in client.models()])
    ...     client.predict([[5.1, 3.5, 1.4, 0.2]])
    simulated ['iris']
    array(['setosa'], dtype='<U10')
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        policy: PathLike,
        gateway: str | None = None,
        sagemaker: str | None = None,
        objects: str | None = None,
        token: str | None = None,
        token_file: PathLike | None = None,
        model: str | None = None,
        connections: int = 2,
    ) -> None:
        if not 1 <= connections <= _MAX_CONNECTIONS:
            raise BadInput(f"{connections} connections", "usage", f"Ask for 1 to {_MAX_CONNECTIONS}.")
        if token_file is not None:
            if token is not None:
                raise BadInput("token and token_file are both given", "usage", "Give one of them.")
            token = Path(token_file).read_text()
        self._place = endpoint or gateway or sagemaker
        self._native, verified = _native.Client.connect(
            read_policy(policy), endpoint, gateway, sagemaker, objects, token, connections
        )
        self.release: str = verified["release"]
        self.module_id: str = verified["module_id"]
        self.attested = datetime.fromisoformat(verified["time"])
        self.simulated: bool = verified["simulated"]
        self.channel: str = verified["channel"]
        self.steps = [Step(**step) for step in verified["steps"]]
        self._served = [ServedModel(**model) for model in verified["models"]]
        self._models: dict[str, Model] = {}
        self._default = model
        if self.simulated:
            warnings.warn(SIMULATED, SimulatedWarning, stacklevel=2)
        if self.channel == "none":
            warnings.warn(_NO_CHANNEL, ChannelWarning, stacklevel=2)
        if model is not None:
            self.model()

    def models(self) -> list[ServedModel]:
        """What the enclave served when it was attested, and whether the policy accepts each."""
        return list(self._served)

    def model(self, name: str | None = None) -> "Model":
        """A model that the policy accepts.

        Parameters
        ----------
        name : str, optional
            Which; by default that of the client, or the only one.

        Returns
        -------
        Model

        Examples
        --------
        >>> client.model("iris").n_features_in_
        4
        """
        name = self._named(name)
        if name not in self._models:
            self._models[name] = Model(self, described(self._described(name)))
        return self._models[name]

    def predict(
        self, X: Rows, model: str | None = None, *, clip: bool = False, progress: Progress = None
    ) -> npt.NDArray[Any]:
        """As `Model.predict`."""
        return self.model(model).predict(X, clip=clip, progress=progress)

    def predict_proba(
        self, X: Rows, model: str | None = None, *, clip: bool = False, progress: Progress = None
    ) -> npt.NDArray[np.float64]:
        """As `Model.predict_proba`."""
        return self.model(model).predict_proba(X, clip=clip, progress=progress)

    def decision_function(
        self, X: Rows, model: str | None = None, *, clip: bool = False, progress: Progress = None
    ) -> npt.NDArray[np.float64]:
        """As `Model.decision_function`."""
        return self.model(model).decision_function(X, clip=clip, progress=progress)

    def description(self, model: str | None = None) -> Description:
        """What a model takes, gives and promises."""
        return self.model(model).description

    @property
    def evidence(self) -> Evidence:
        """What proves all answers so far to a third party, offline; it stays after `close`.

        Each connection is attested by itself, so there is a piece for each that answered, and a file.

        Examples
        --------
        >>> labels = client.predict(X)
        >>> paths = client.evidence.save("evidence.cbor")
        >>> for path in paths:
        ...     verified = cloister.verify_evidence(path, policy="policy.toml")
        >>> verified.receipts[0].models
        ('iris',)
        """
        return Evidence(self._native.evidence())

    def close(self) -> None:
        """Ends all connections, once each has the answer that is under way."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        enclave = "SIMULATED enclave" if self.simulated else "enclave"
        models = ", ".join(self._accepted()) or "none"
        which = f"{enclave} {self.module_id}, release {self.release}, accepted models: {models}"
        return printable(f"<Client of {self._place}: {which}>")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client holds connections and secret keys, which cannot be pickled: make one in each process")

    def _named(self, name: str | None) -> str:
        accepted = self._accepted()
        name = name or self._default
        if name is not None:
            return name
        if len(accepted) == 1:
            return accepted[0]
        raise BadInput(
            f"no model is named, and the policy accepts {len(accepted)} of those that are served: "
            f"{', '.join(map(repr, accepted)) or 'none'}",
            "no_model",
            f"{'Name one: model=NAME' if accepted else 'Get a policy that accepts one'}; client.models() lists all.",
        )

    def _described(self, name: str) -> dict[str, Any]:
        try:
            return self._native.description(name)
        except BadInput as error:
            if error.code != "unknown_model":
                raise
            raise BadInput(error.message, error.code, "Name one of client.models().") from None

    def _accepted(self) -> list[str]:
        return list(dict.fromkeys(model.name for model in self._served if model.accepted))


_NO_CHANNEL = (
    "TLS ENDS BEFORE THE ENCLAVE: whoever ends it sees sizes and times, and may hand requests to another enclave that "
    "the policy accepts. Features and logits stay encrypted, and no answer counts without a receipt of the enclave "
    "that was verified."
)


class Model:
    """A model that is evaluated under encryption, with the methods and attributes of scikit-learn's that predict.

    Each of its methods takes rows `X` of the shape (n_rows, n_features): an array or a list of rows, by position, or a
    frame of pandas or polars, by the names of its columns. All rows are checked before the first is sent. With `clip`,
    values outside the declared ranges are moved to their edges; without, they are an error. `progress` is called with
    how many rows are answered, and of how many; without it there is a bar if tqdm is installed, somebody sees it, and
    it takes long. ``progress=False`` is none.

    Attributes
    ----------
    description : Description
        What it takes, gives and promises.
    feature_names_in_ : ndarray of str
        The names of its features.
    n_features_in_ : int
        As many as there are.
    classes_ : ndarray
        Its classes; not of a regression.
    """

    def __init__(self, client: Client, description: Description) -> None:
        self._client = client
        self.description = description
        self.feature_names_in_ = np.array([feature.name for feature in description.features], dtype=object)
        self.n_features_in_ = len(description.features)
        self._classes = _classes(description.labels)

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The classes, as scikit-learn has them."""
        self._require(self.description.labels, "classes_", "it is a regression")
        return self._classes

    def predict(self, X: Rows, *, clip: bool = False, progress: Progress = None) -> npt.NDArray[Any]:
        """The class of each row, or the values of a regression.

        Examples
        --------
        >>> client.model("iris").predict(X[:2])
        array(['setosa', 'setosa'], dtype='<U10')
        """
        inference = self.infer(X, clip=clip, progress=progress)
        predicted = inference.labels if inference.values is None else inference.values
        assert predicted is not None
        return predicted

    def predict_proba(self, X: Rows, *, clip: bool = False, progress: Progress = None) -> npt.NDArray[np.float64]:
        """The probability of each class, in the order of `classes_`.

        Examples
        --------
        >>> client.model("iris").predict_proba(X).shape
        (150, 3)
        """
        why = "it has no probabilities" if self.description.labels else "it is a regression"
        self._require(self.description.has_probabilities, "predict_proba", why)
        probabilities = self.infer(X, clip=clip, progress=progress).probabilities
        assert probabilities is not None
        return probabilities

    def decision_function(self, X: Rows, *, clip: bool = False, progress: Progress = None) -> npt.NDArray[np.float64]:
        """The logits: one for each class, or of two classes one that is positive for the second."""
        why = "its logits are probabilities" if self.description.labels else "it is a regression"
        self._require(self.description.has_decision_function, "decision_function", why)
        return _squeezed(self.infer(X, clip=clip, progress=progress).logits)

    def certain(self, X: Rows, *, clip: bool = False, progress: Progress = None) -> npt.NDArray[np.bool_]:
        """Whether no change of the logits by the bound makes the label another: it is the original model's for sure.

        Of trees and networks it is the label of the model on its bits, as `Bundle.report` compares it.
        """
        return self.infer(X, clip=clip, progress=progress).certain

    def infer(self, X: Rows, *, clip: bool = False, progress: Progress = None) -> Inference:
        """All at once, for the price of one.

        Examples
        --------
        >>> inference = client.model("iris").infer(X)
        >>> inference.labels[:2], inference.logits.shape, bool(inference.certain.all())
        (array(['setosa', 'setosa'], dtype='<U10'), (150, 3), True)
        """
        rows = matrix(X, [feature.name for feature in self.description.features])
        with told(progress, len(rows)) as tell:
            answer = self._client._native.infer(self.description.name, rows, clip, tell)
        logits, outputs = _table(answer["logits"], rows), _table(answer["outputs"], rows)
        is_classifier = bool(self.description.labels)
        return Inference(
            labels=self._classes[np.frombuffer(answer["classes"], np.int64)] if is_classifier else None,
            values=None if is_classifier else _squeezed(outputs),
            logits=logits,
            probabilities=outputs if self.description.has_probabilities else None,
            certain=np.frombuffer(answer["certain"], np.bool_).copy(),
            bytes=answer["bytes"],
            timing=Timing(*answer["timing"]),
        )

    def __repr__(self) -> str:
        simulated = "SIMULATED " if self._client.simulated else ""
        takes, gives = self.n_features_in_, len(self.description.labels)
        kind = f"a classifier of {gives} classes" if gives else f"a regression of {len(self.description.logit_names)}"
        name = f"{self.description.name} {self.description.version}"
        return printable(f"<{simulated}Model {name}: {takes} features, {kind}>")

    def _require(self, there: object, name: str, why: str) -> None:
        if not there:
            raise NotOffered(
                f"the model {self.description.name!r} has no {name}: {why}",
                "not_offered",
                "model.infer(X) gives all that the model has.",
            )


def _classes(labels: tuple[str | int | bool, ...]) -> npt.NDArray[Any]:
    kinds = {type(label) for label in labels}
    dtype: Any = {str: np.str_, int: np.int64, bool: np.bool_}[kinds.pop()] if len(kinds) == 1 else object
    return np.array(labels, dtype=dtype)


def _table(numbers: bytes, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.frombuffer(numbers).reshape(len(rows), -1).copy()


def _squeezed(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """As scikit-learn has it: a single column is none."""
    return table[:, 0] if table.shape[1] == 1 else table
