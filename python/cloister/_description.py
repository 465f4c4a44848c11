"""What a model takes, gives and promises."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Feature:
    """A column. Values outside its range are refused, NaN unless it is `imputed`, and what is between its steps."""

    name: str
    low: float
    high: float
    step: float | None
    imputed: bool


@dataclass(frozen=True)
class Description:
    """What a model takes, gives and promises.

    Attributes
    ----------
    name, version, digest : str
        Which model it is; the digest is that of its bundle, by which a policy accepts it.
    features : tuple of Feature
        Its columns.
    labels : tuple of str, int or bool
        Its classes; none of a regression.
    logit_names : tuple of str
        What each logit is of.
    has_probabilities : bool
        Whether there is a `predict_proba`.
    has_decision_function : bool
        Whether there is a `decision_function`: not where logits are probabilities already, as forests average them.
    bound : float
        Every logit is within this of the original model's, proven; of trees and networks, of the model's on its bits.
    decimals : int
        Those that a logit has.
    rows_per_request : int
        More rows are sent in several requests.
    budget : int or None
        The most logits that an enclave returns of the model, from boot to end.
    parameters : str
        The name of the encryption parameters.
    request_bytes, reply_bytes : int
        What one row costs.
    """

    name: str
    version: str
    digest: str = field(repr=False)
    features: tuple[Feature, ...] = field(repr=False)
    labels: tuple[str | int | bool, ...]
    logit_names: tuple[str, ...] = field(repr=False)
    has_probabilities: bool
    has_decision_function: bool = field(repr=False)
    bound: float
    decimals: int
    rows_per_request: int
    budget: int | None
    parameters: str = field(repr=False)
    request_bytes: int = field(repr=False)
    reply_bytes: int = field(repr=False)


def described(native: Mapping[str, Any]) -> Description:
    """Of what the native half says."""
    features = tuple(Feature(**feature) for feature in native["features"])
    lists = {name: tuple(native[name]) for name in ("labels", "logit_names")}
    return Description(**{**native, **lists, "features": features})
