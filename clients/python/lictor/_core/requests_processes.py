"""The calls that are about processes of machines."""

from __future__ import annotations

from typing import Final

from lictor.machine.v1 import activation_service_pb2 as pb
from lictor.machine.v1 import machine_pb2
from lictor.machine.v1 import machine_service_pb2 as machines_pb

from .prepared import Listing, Prepared, page, read

_MACHINES: Final = "/lictor.machine.v1.MachineService/"
_SERVICE: Final = "/lictor.machine.v1.ActivationService/"


def heartbeat_process(
    machine_id: str, name: str, *, machine_secret: str = "", ended: bool = False, timeout_s: float | None = None
) -> Prepared[pb.HeartbeatProcessResponse]:
    """Says that a process of a machine is there, or that it has `ended`. The first heartbeat of a name takes a place."""
    request = pb.HeartbeatProcessRequest(machine_id=machine_id, machine_secret=machine_secret, name=name, ended=ended)
    kind = pb.HeartbeatProcessResponse
    return read(_SERVICE + "HeartbeatProcess", request, kind, lambda answer: answer, timeout_s, hot=True)


def list_processes(
    license_id: str, *, machine_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[machines_pb.ListProcessesResponse, machine_pb2.Process]:
    """Lists the processes that have places of a license at this moment, oldest first; of one machine where it is named."""

    def ask(token: str) -> Prepared[machines_pb.ListProcessesResponse]:
        request = machines_pb.ListProcessesRequest(
            license_id=license_id, machine_id=machine_id, page_size=page_size, page_token=token
        )
        return page(_MACHINES + "ListProcesses", request, machines_pb.ListProcessesResponse, timeout_s)

    return Listing(ask, lambda answer: answer.processes, page_token)
