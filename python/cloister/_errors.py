"""What goes wrong, whose fault it is, and what to do about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """A verification step that was passed, numbered as in attestation/VERIFICATION.md."""

    number: int
    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.number:>2} {self.name}: {self.found}"


class CloisterError(Exception):
    """Something went wrong.

    Attributes
    ----------
    code : str
        A stable name, for programs.
    remedy : str
        What to do about it.
    """

    def __init__(self, message: str, code: str, remedy: str) -> None:
        super().__init__(message, code, remedy)
        self.message = printable(message)
        self.code = code
        self.remedy = printable(remedy)

    def __str__(self) -> str:
        return f"{self.message}\n{self._advice()}"

    def _advice(self) -> str:
        return f"What to do: {self.remedy}"


class NotVerified(CloisterError):
    """What the policy asks for was not proved: by an evaluator, which got no data, or of an answer, which does not count.

    Attributes
    ----------
    step : int or None
        The number of the verification step that failed, if it was one.
    step_name : str or None
        Its name.
    expected : str or None
        What passes it.
    passed : list of Step
        The steps before it.
    """

    def __init__(
        self,
        message: str,
        code: str,
        remedy: str,
        step: int | None = None,
        step_name: str | None = None,
        expected: str | None = None,
        passed: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message, code, remedy)
        passed = list(passed)
        self.args = (message, code, remedy, step, step_name, expected, passed)
        self.step = step
        self.step_name = step_name
        self.expected = expected
        self.passed = [Step(**report) for report in passed]

    def __str__(self) -> str:
        if self.step is None:
            return super().__str__()
        return f"step {self.step} ({self.step_name}): {self.message}\nTo pass: {self.expected}\n{self._advice()}"


class Refused(CloisterError):
    """The service, or whoever stands before it, does not answer this request."""


class Unreachable(CloisterError):
    """Nobody answers, or the connection was lost."""


class BadInput(CloisterError, ValueError):
    """What was given cannot be used. Nothing of it was sent."""


class NotOffered(CloisterError, AttributeError):
    """The model has no such method, as with scikit-learn's models that have no probabilities."""


class SimulatedWarning(UserWarning):
    """The enclave is simulated: it proves nothing about any hardware."""


class ChannelWarning(UserWarning):
    """TLS ends before the enclave: whoever ends it sees sizes and times."""


def printable(text: str) -> str:
    """Somebody else's words may be among these: they do not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
