"""The native half: python/src. What it gives as dictionaries, the dataclasses of the package are made of."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = ["Bundle", "Client", "Policy", "import_onnx", "verify_document", "verify_evidence"]

@final
class Client:
    @staticmethod
    def connect(
        policy: Policy,
        endpoint: str | None,
        gateway: str | None,
        sagemaker: str | None,
        objects: str | None,
        token: str | None,
        connections: int,
    ) -> tuple[Client, dict[str, Any]]: ...
    def description(self, model: str) -> dict[str, Any]: ...
    def infer(
        self,
        model: str,
        rows: npt.NDArray[np.float64],
        clip: bool,
        progress: Callable[[int], object] | None,
    ) -> dict[str, Any]: ...
    def evidence(self) -> list[bytes]: ...
    def close(self) -> None: ...

@final
class Policy:
    def __new__(cls, bytes: bytes, path: str) -> Policy: ...

@final
class Bundle:
    def description(self) -> dict[str, Any]: ...
    def report(self) -> str: ...
    def to_bytes(self) -> bytes: ...

def verify_evidence(evidence: bytes, policy: Policy) -> dict[str, Any]: ...
def verify_document(document: bytes, policy: Policy | None, nonce: bytes | None, at: str) -> dict[str, Any]: ...
def import_onnx(
    onnx: bytes,
    name: str,
    version: str,
    precision: float,
    model_privacy: float | None,
    budget: int | None,
    ranges: list[tuple[str, float, float, float | None]] | None,
    rows: npt.NDArray[np.float64] | None,
    public_thresholds: bool,
    names: list[str] | None,
) -> Bundle: ...
