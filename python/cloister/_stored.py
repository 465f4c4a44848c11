"""Evidence and documents, verified offline."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

from cloister import _native
from cloister._errors import SimulatedWarning, Step

PathLike = str | os.PathLike[str]

SIMULATED = (
    "SIMULATED: this is not a Nitro Enclave. Its documents are signed by a simulated authority; they prove nothing "
    "about any hardware."
)


def read_policy(path: PathLike) -> _native.Policy:
    """The policy in a file."""
    return _native.Policy(Path(path).read_bytes(), os.fspath(path))


@dataclass(frozen=True)
class Receipt:
    """An answer that an enclave signed: to which request, by which model, and when. The digests are of ciphertexts."""

    time: datetime
    models: tuple[str, ...]
    digest: str
    request: str
    response: str
    parameters: str


@dataclass(frozen=True)
class VerifiedEvidence:
    """Who answered, and what was answered.

    It does not prove what the data was, who asked, or that no other answer was given: `cloister verify-receipt` says
    all that it does not.
    """

    release: str
    module_id: str
    region: str
    time: datetime
    simulated: bool
    channel: str
    pcrs: dict[int, bytes] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)
    receipts: tuple[Receipt, ...] = field(repr=False)


@dataclass(frozen=True)
class VerifiedDocument:
    """What an authentic attestation document says; without a policy, and so a `release`, not which program it is of."""

    release: str | None
    module_id: str
    region: str
    time: datetime
    simulated: bool
    nonce: bytes | None = field(repr=False)
    public_key: bytes | None = field(repr=False)
    user_data: bytes | None = field(repr=False)
    pcrs: dict[int, bytes] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)


class Evidence(Sequence[bytes]):
    """What a third party needs to check answers offline: a piece of bytes for each attestation with answers."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = tuple(pieces)

    def save(self, path: PathLike) -> list[Path]:
        """Writes a file for each piece, as `cloister infer --evidence` does: `path`, `path`.2 and so on. Says which."""
        paths = [Path(os.fspath(path) + (f".{n}" if n > 1 else "")) for n in range(1, len(self) + 1)]
        for file, piece in zip(paths, self, strict=True):
            file.write_bytes(piece)
        return paths

    def verify(self, policy: PathLike) -> list[VerifiedEvidence]:
        """Verifies each piece, as `verify_evidence` does."""
        return [verify_evidence(piece, policy=policy) for piece in self]

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> "Evidence": ...
    def __getitem__(self, place: int | slice) -> "bytes | Evidence":
        return Evidence(self._pieces[place]) if isinstance(place, slice) else self._pieces[place]

    def __len__(self) -> int:
        return len(self._pieces)

    def __repr__(self) -> str:
        return f"<Evidence of {len(self)} attestations>"


def verify_evidence(evidence: bytes | PathLike, *, policy: PathLike) -> VerifiedEvidence:
    """Verifies a piece of evidence and all of its receipts, offline.

    Parameters
    ----------
    evidence : bytes or path
        As `Evidence.save` or `cloister infer --evidence` writes it.
    policy : path
        What the enclave had to prove. It is judged now.

    Raises
    ------
    NotVerified
        The enclave, or a receipt, is not what the policy accepts.
    """
    verified = _checked(_native.verify_evidence(_read(evidence), read_policy(policy)))
    receipts = (
        Receipt(**{**receipt, "time": datetime.fromisoformat(receipt["time"]), "models": tuple(receipt["models"])})
        for receipt in verified["receipts"]
    )
    return VerifiedEvidence(**{**verified, "receipts": tuple(receipts)})


def verify_document(
    document: bytes | PathLike,
    *,
    policy: PathLike | None = None,
    nonce: bytes | None = None,
    at: str | datetime = "now",
) -> VerifiedDocument:
    """Verifies an attestation document alone: raw COSE_Sign1, as the Nitro Secure Module returns it.

    Parameters
    ----------
    document : bytes or path
        The document.
    policy : path, optional
        Also require this; its root is then the trust anchor instead of AWS's. It is judged now.
    nonce : bytes, optional
        Also require that the document answers this.
    at : {"now", "document"} or datetime
        The time to judge the document at; "document" is its own, if that is past.

    Raises
    ------
    NotVerified
        With the number of the step that failed.
    """
    when = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(at, datetime) else at
    policy_read = None if policy is None else read_policy(policy)
    return VerifiedDocument(**_checked(_native.verify_document(_read(document), policy_read, nonce, when)))


def _read(source: bytes | PathLike) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _checked(native: Mapping[str, Any]) -> dict[str, Any]:
    """As dataclasses have it; and that it is simulated is not overlooked."""
    if native["simulated"]:
        warnings.warn(SIMULATED, SimulatedWarning, stacklevel=3)
    steps = tuple(Step(**step) for step in native["steps"])
    return {**native, "time": datetime.fromisoformat(native["time"]), "pcrs": dict(native["pcrs"]), "steps": steps}
