"""`last_validate_time` is behind by a minute at most: an answer that is given again marks its license once in it, and each time
where that minute is over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from lictor._core.requests_hold import LEASE_SHORTER_S
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from services.license import answers
from services.license.validation_marks import ValidationMarks
from services.machine.leases import NOTICED_WITHIN
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop, send
from tests.helpers.serving import counted
from tests.helpers.suite import running_suite

AGAIN: Final = "lictor_validations_again_total"
TIMES: Final = 200


@pytest.mark.parametrize(
    ("after", "each"),
    [
        (timedelta(minutes=1), False),
        (timedelta(seconds=-1), True),
    ],  # the record's time is guessed, and may go back a little
)
async def test_an_answer_that_is_given_again_marks_its_license_once_a_minute(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: timedelta, *, each: bool
) -> None:
    marked = 0
    touched = ValidationMarks.touched

    def counting(self: ValidationMarks, *of: Any) -> None:
        nonlocal marked
        marked += 1
        touched(self, *of)

    monkeypatch.setattr(ValidationMarks, "touched", counting)
    monkeypatch.setattr(answers, "MARKED_AGAIN_AFTER", after)
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        made = await (await open_shop(world.test)).issue()
        # As other languages ask, without a token: an answer to one that names a write is not kept.
        request = ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
        for _ in range(TIMES):
            assert (await send(suite, request, world.test_key)).valid
        again = await counted(suite, AGAIN)
    assert again > 0
    assert marked == (TIMES if each else TIMES - again)


def test_client_and_server_agree_on_how_much_shorter_a_lease_is_than_its_grace() -> None:
    assert NOTICED_WITHIN.total_seconds() == LEASE_SHORTER_S
