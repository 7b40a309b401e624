"""How `make test` shares the tests among its workers: by files, and what needs the running suite by transports too.

A worker has one suite at a time. File by file it would start one for each transport, each time anew: two seconds a file.
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadFileScheduling  # pyright: ignore[reportMissingTypeStubs]
from xdist.workermanage import WorkerController  # pyright: ignore[reportMissingTypeStubs]

ORDER: Final = ("", "grpcio", "envoy")
"""What comes first: the tests that name no transport, among which are the longest."""
TOGETHER: Final = ("tests/service/test_record_plans",)
"""Files whose names begin so are one unit: they share what a worker makes once, and takes 19 s to make."""


def unit_of(nodeid: str) -> tuple[str, str]:
    """The file of a test and the transport that is its first parameter; tests of which both are the same stay together."""
    file, _, test = nodeid.partition("::")
    first = test.partition("[")[2].rstrip("]").partition("-")[0]
    group = next((begin for begin in TOGETHER if file.startswith(begin)), file)
    return group, first if first in ORDER else ""


class ByTransport(LoadFileScheduling):
    """As `--dist loadfile`, one transport after the other; the largest units first, as there."""

    def _split_scope(self, nodeid: str) -> str:
        return "::".join(unit_of(nodeid))

    def _assign_work_unit(self, node: WorkerController) -> None:
        following = min(self.workqueue, key=lambda scope: ORDER.index(scope.rpartition("::")[2]))
        self.workqueue.move_to_end(following, last=False)
        super()._assign_work_unit(node)
