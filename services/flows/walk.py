"""How a flow tells what it saw: one line per step, and a stop at the first difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lictor import LictorError


class StepFailedError(Exception):
    """What a step saw is not what was promised."""


@dataclass(slots=True)
class Walk:
    """Counts and prints steps."""

    say: Callable[[str], None]
    steps: int = field(default=0, init=False)

    def expect(self, step: str, seen: object, promised: object) -> None:
        """Prints the step with what was seen; StepFailedError unless it is what was promised."""
        if seen != promised:
            raise StepFailedError(f"{step}: promised {promised!r}, saw {seen!r}")
        self.steps += 1
        self.say(f"  ok  {step}: {seen}")

    def refused(self, step: str, reason: str, call: Callable[[], object]) -> LictorError:
        """Prints a refusal with its reason; StepFailedError when the call was not refused, or for another reason."""
        try:
            answer = call()
        except LictorError as error:
            self.expect(step, error.reason, reason)
            self.say(f"        {error.message}")
            return error
        raise StepFailedError(f"{step}: promised a refusal with {reason}, was answered {type(answer).__name__}")

    def raised(self, step: str, kind: type[Exception], call: Callable[[], object]) -> None:
        """Prints an error of the client's own with its class; StepFailedError when there was none, or another."""
        try:
            answer = call()
        except kind as error:
            self.steps += 1
            self.say(f"  ok  {step}: {type(error).__name__}")
            self.say(f"        {error}")
            return
        raise StepFailedError(f"{step}: promised {kind.__name__}, was answered {type(answer).__name__}")
