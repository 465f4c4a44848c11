"""Encrypted inference in an attested AWS Nitro Enclave, for who knows scikit-learn.

`Client` connects to an evaluator and verifies it before anything else: a genuine enclave, an accepted release, the
expected models. Then `predict`, `predict_proba` and `decision_function` do what they do in scikit-learn, and nobody but
you sees features or results.

>>> client = cloister.Client(ENDPOINT, policy="policy.toml")
>>> client.predict([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
array(['setosa', 'virginica'], dtype='<U10')

`ENDPOINT` is where the service is, ``https://HOST:PORT``; the policy comes with the release, never from the endpoint.
"""

from cloister._bundle import Bundle, import_model
from cloister._client import Client, Inference, Model, ServedModel, Timing
from cloister._description import Description, Feature
from cloister._errors import (
    BadInput,
    ChannelWarning,
    CloisterError,
    NotOffered,
    NotVerified,
    Refused,
    SimulatedWarning,
    Step,
    Unreachable,
)
from cloister._stored import (
    Evidence,
    Receipt,
    VerifiedDocument,
    VerifiedEvidence,
    verify_document,
    verify_evidence,
)

__all__ = [
    "BadInput",
    "Bundle",
    "ChannelWarning",
    "Client",
    "CloisterError",
    "Description",
    "Evidence",
    "Feature",
    "Inference",
    "Model",
    "NotOffered",
    "NotVerified",
    "Receipt",
    "Refused",
    "ServedModel",
    "SimulatedWarning",
    "Step",
    "Timing",
    "Unreachable",
    "VerifiedDocument",
    "VerifiedEvidence",
    "import_model",
    "verify_document",
    "verify_evidence",
]

# Tracebacks and pickles name what users import.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
