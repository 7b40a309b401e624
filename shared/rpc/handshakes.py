"""Which certificate grpc shows in each handshake, and when it may be given another."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Final

from shared.rpc.tls import TlsFiles, TlsMaterial, TlsWatch

SESSION_S: Final = 60.0
"""How long a session of a caller with a certificate may be resumed."""
REST_S: Final = 0.2
"""How long no handshake has begun when the certificate is replaced."""


class Handshakes:
    """What grpc asks before each handshake, one thread at a time.

    Where callers show certificates, theirs is not shown when a session is resumed, so one that has ended since is let in. A
    session ends with what it was made under, which is why that is replaced every `SESSION_S` there.

    grpc frees the old as soon as it is given the new, even if another thread has asked and has yet to take hold of the old
    (its issue 36693): that crashes the process. So nobody may have asked for `REST_S`, which is a thousand times what a
    thread takes for it; who asks meanwhile waits in line.

    Args:
        files: The certificate, its key and the authorities of callers.
        now_s: A clock that never goes back.
        rest: Waits for so many seconds.

    Raises:
        TlsError: The files cannot be used.
    """

    def __init__(
        self, files: TlsFiles, now_s: Callable[[], float] = time.monotonic, rest: Callable[[float], None] = time.sleep
    ) -> None:
        self._watch = TlsWatch(files)
        self._now_s, self._rest = now_s, rest
        self._lasts_s = inf if files.client_ca_file is None else SESSION_S
        self._given_at = self._asked_at = now_s()

    @property
    def material(self) -> TlsMaterial:
        """What the files held when they were last good."""
        return self._watch.material

    def replaced(self) -> TlsMaterial | None:
        """What this handshake and those after it use; None is what the last one used."""
        changed = self._watch.renewed() is not None
        now = self._now_s()
        replace = changed or now - self._given_at >= self._lasts_s
        if replace and (left := self._asked_at + REST_S - now) > 0:
            self._rest(left)
        self._asked_at = self._now_s()
        if not replace:
            return None
        self._given_at = self._asked_at
        return self._watch.material
