"""Operator keys are made, listed and ended by whoever administers the database."""

from __future__ import annotations

from pathlib import Path

import pytest
from lictor import Unauthenticated

from services.bootstrap import bootstrap_operator_key, list_operator_keys, revoke_operator_key
from tests.helpers.suite import Suite


async def test_a_revoked_operator_key_is_refused_from_the_next_call_on(suite: Suite, tmp_path: Path) -> None:
    out = tmp_path / "operator"
    made = await bootstrap_operator_key(suite.admin_dsn, suite.settings.root_secret_file, out)
    async with suite.client(out.read_text().strip()) as operator:
        assert (await operator.whoami()).key_id == made

        assert await revoke_operator_key(suite.admin_dsn, made)

        with pytest.raises(Unauthenticated):
            await operator.whoami()
    listed = {key.operator_key_id: key for key in await list_operator_keys(suite.admin_dsn)}
    assert listed[made].revoked_at is not None
    assert not await revoke_operator_key(suite.admin_dsn, made)


async def test_a_key_file_is_private_and_never_written_over(suite: Suite, tmp_path: Path) -> None:
    out = tmp_path / "operator"
    await bootstrap_operator_key(suite.admin_dsn, suite.settings.root_secret_file, out)
    before, known = out.read_text(), len(await list_operator_keys(suite.admin_dsn))

    with pytest.raises(FileExistsError):
        await bootstrap_operator_key(suite.admin_dsn, suite.settings.root_secret_file, out)

    assert out.stat().st_mode & 0o777 == 0o600
    assert (out.read_text(), len(await list_operator_keys(suite.admin_dsn))) == (before, known)
