"""How Python values become requests, and what both flavours of the client have in common."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import grpc
import lictor
import pytest
from google.protobuf.json_format import MessageToDict
from lictor import AsyncLictor, Lictor, LictorError, TlsConfig
from lictor._core import requests_accounts as accounts
from lictor._core import requests_catalog as catalog
from lictor._core import requests_customers as customers
from lictor._core import requests_imports as imports
from lictor._core import requests_license_events as license_events
from lictor._core import requests_license_keys as license_keys
from lictor._core import requests_licenses as licenses
from lictor._core import requests_machines as machines
from lictor._core import requests_processes as processes
from lictor._core import requests_seats as seats
from lictor._core import requests_tiers as tiers
from lictor._core import requests_tokens as tokens
from lictor._core import requests_usage as usage
from lictor._core import requests_validation as validation
from lictor._core import requests_watch as watch
from lictor._core import requests_workloads as workloads
from lictor._core.config import ClientConfig, is_loopback
from lictor._core.errors import BY_CODE, error_of
from lictor._core.prepared import Listing, Prepared
from lictor._core.tries import Tries

from services.call import methods

NAIVE = datetime(2030, 1, 1)
HOLD = "/lictor.machine.v1.ActivationService/HoldSeat"
SECRET = "sk_live_very_secret"


def test_one_method_for_each_rpc_with_the_flags_of_the_contract() -> None:
    """Every RPC has a builder, and its path, retry and hot flags are those of the descriptors."""
    required: dict[str, object] = {
        "code": "C", "display_name": "D", "product_id": "prod_1", "policy_id": "pol_1", "scopes": ["a:b"],
        "spiffe_id_pattern": "spiffe://d/p", "mode": "TEST", "slug": "s", "items": (), "fingerprint": "fingerprint",
        "epoch": 1, "name": "N",
    }  # fmt: skip
    seen: set[str] = set()
    modules = (
        accounts, catalog, customers, imports, licenses, license_events, license_keys, machines, processes, seats, tiers,
        tokens, usage, validation, workloads,
    )  # fmt: skip
    for module in modules:
        for name, build in inspect.getmembers(module, inspect.isfunction):
            if build.__module__ != module.__name__ or name.startswith("_"):
                continue
            parameters = inspect.signature(build).parameters
            given = {key: value for key, value in required.items() if key in parameters}
            given |= {
                key: "id_1"
                for key in parameters
                if key.endswith("_id") and parameters[key].default is inspect.Parameter.empty
            }
            if name.startswith("update_"):
                given["display_name"] = "D"
            asked = {
                "validate": {"key": "K"},
                "validate_batch": {"validations": [validation.Validation(key="K")]},
                "explain_validation": {"validation": validation.Validation(key="K")},
            }
            made: object = build(**asked.get(name, given))
            prepared = cast(Prepared[object], _first(made))
            method = methods()[prepared.method]
            assert type(prepared.request).DESCRIPTOR.full_name == method.request.DESCRIPTOR.full_name
            assert (prepared.hot, prepared.retry_safe) == (method.hot, method.retry_safe)
            assert method.takes_request_id == bool(getattr(prepared.request, "request_id", ""))
            assert "timeout_s" in parameters
            seen.add(prepared.method)
    assert seen | {watch.METHOD, HOLD} == set(methods()), "streams have a builder of another kind"


def _first(made: object) -> object:
    return cast(Listing[Any, object], made).ask("") if isinstance(made, Listing) else made


NAMESPACES = (
    "products", "tiers", "policies", "customers", "licenses", "machines", "signing_keys", "api_keys", "accounts",
)  # fmt: skip


def _methods_of(thing: object) -> dict[str, Callable[..., object]]:
    return {name: value for name, value in inspect.getmembers(thing, inspect.ismethod) if not name.startswith("_")}


@pytest.mark.parametrize("namespace", ["", *NAMESPACES])
def test_sync_and_async_have_the_same_methods_and_signatures(namespace: str) -> None:
    blocking: object = Lictor(api_key=SECRET)
    waiting: object = AsyncLictor(api_key=SECRET)
    if namespace:
        blocking, waiting = getattr(blocking, namespace), getattr(waiting, namespace)
    ours, theirs = _methods_of(blocking), _methods_of(waiting)
    assert ours.keys() == theirs.keys()
    for name, method in ours.items():
        assert inspect.signature(method) == inspect.signature(theirs[name]), name
        assert method.__doc__ == theirs[name].__doc__


def test_both_clients_are_made_alike() -> None:
    assert inspect.signature(Lictor.__init__) == inspect.signature(AsyncLictor.__init__)


def test_a_naive_datetime_is_refused() -> None:
    for build in (
        lambda: licenses.create_license(policy_id="pol_1", expire_time=NAIVE),
        lambda: licenses.update_license("lic_1", start_time=NAIVE),
        lambda: licenses.reinstate_license("lic_1", expire_time=NAIVE),
        lambda: accounts.create_api_key(scopes=["a:b"], expire_time=NAIVE),
    ):
        with pytest.raises(ValueError, match="no timezone"):
            build()


def test_values_are_converted() -> None:
    zone = timezone(timedelta(hours=2))
    made = licenses.create_license(
        policy_id="pol_1",
        customer_email="ada@example.com",
        expire_time=datetime(2030, 1, 1, 2, 0, 0, 123456, tzinfo=zone),
        metadata={"plan": "pro", "seats": 3, "flags": [True, None, {"x": 1.5}]},
        labels={"region": "eu"},
        request_id="mine",
    )
    assert MessageToDict(made.request) == {
        "requestId": "mine",
        "policyId": "pol_1",
        "customer": {"email": "ada@example.com"},
        "expireTime": "2030-01-01T00:00:00.123456Z",
        "metadata": {"plan": "pro", "seats": 3.0, "flags": [True, None, {"x": 1.5}]},
        "labels": {"region": "eu"},
    }
    policy = catalog.create_policy(
        product_id="prod_1",
        display_name="P",
        template="desktop_app",
        duration=timedelta(hours=1),
        is_trial=False,
        request_id="m",
    )
    assert MessageToDict(policy.request) == {
        "requestId": "m",
        "productId": "prod_1",
        "displayName": "P",
        "template": "desktop_app",
        "duration": "3600s",
        "isTrial": False,
    }


def test_an_update_names_what_was_given_and_clears_with_none() -> None:
    changed = licenses.update_license("lic_1", display_name="D", expire_time=None, request_id="m").request
    assert MessageToDict(changed) == {
        "requestId": "m",
        "licenseId": "lic_1",
        "displayName": "D",
        "updateMask": "displayName,expireTime",
    }
    unlimited = catalog.update_policy("pol_1", max_machines=None, allow_unlimited=True, request_id="m").request
    assert MessageToDict(unlimited)["updateMask"] == "maxMachines"
    with pytest.raises(ValueError, match="nothing to update"):
        licenses.update_license("lic_1", etag="e")


@pytest.mark.parametrize(
    ("build", "kind", "words"),
    [
        (lambda: catalog.create_policy(product_id="p", display_name="d", template="nope"), ValueError, "desktop_app"),
        (lambda: licenses.list_licenses(status="STATUS_UNSPECIFIED"), ValueError, "active"),
        (lambda: licenses.create_license(policy_id="p", customer_id="c", customer_email="e"), ValueError, "one way"),
        (lambda: licenses.create_license(policy_id="p", customer_name="n"), ValueError, "customer_name"),
        (lambda: licenses.create_license(policy_id="p", metadata={"n": 2**53 + 1}), ValueError, "exactly"),
        (lambda: accounts.create_api_key(scopes="licenses:read"), TypeError, "list of names"),
        (lambda: workloads.update_workload_binding("w", scopes="licenses:read"), TypeError, "list of names"),
        (lambda: workloads.update_workload_binding("w"), ValueError, "display_name, scopes"),
        (lambda: validation.validate(key="k", license_id="l"), ValueError, "not both"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_it_is_sent(
    build: Callable[[], object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        build()


def test_metadata_is_json() -> None:
    with pytest.raises(TypeError, match="datetime"):
        licenses.create_license(policy_id="p", metadata={"at": datetime.now(UTC)})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("127.0.0.1:7420", True),
        ("127.1.2.3:1", True),
        ("localhost:7420", True),
        ("[::1]:7420", True),
        ("dns:///localhost:7420", True),
        ("unix:/run/lictor.sock", True),
        ("10.0.0.1:7420", False),
        ("lictor.example:7420", False),
        ("localhost.example:7420", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("dns://10.0.0.53/localhost:7420", False),
    ],
)
def test_plaintext_stays_on_this_machine(endpoint: str, local: bool) -> None:
    assert is_loopback(endpoint) is local
    if local:
        ClientConfig(endpoint, SECRET)
    else:
        with pytest.raises(ValueError, match="unencrypted"):
            ClientConfig(endpoint, SECRET)
    ClientConfig(endpoint, SECRET, tls=TlsConfig())
    ClientConfig(endpoint, SECRET, insecure=True)


def test_secrets_are_in_no_repr() -> None:
    for thing in (
        ClientConfig("127.0.0.1:1", SECRET),
        Lictor(api_key=SECRET),
        AsyncLictor(api_key=SECRET),
        Lictor(api_key=SECRET).licenses,
        Lictor(api_key=SECRET).runner,
        validation.validate(key=SECRET),
        licenses.create_license(policy_id="p", key=SECRET),
    ):
        assert SECRET not in repr(thing) + str(thing)


@pytest.mark.parametrize("key", [SECRET + "\n", SECRET + " x", SECRET + "é"])
def test_a_malformed_key_is_refused_and_not_echoed(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Lictor(api_key=key)
    assert SECRET not in str(caught.value)


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="empty"):
        AsyncLictor(api_key="")
    with pytest.raises(ValueError, match="timeout_s"):
        Lictor(api_key=SECRET, timeout_s=0)
    with pytest.raises(ValueError, match="contradicts"):
        Lictor(api_key=SECRET, tls=TlsConfig(), insecure=True)


@pytest.mark.parametrize("kind", [Lictor, AsyncLictor])
def test_without_a_client_certificate_there_must_be_a_key(kind: type[Lictor | AsyncLictor]) -> None:
    for tls in (None, TlsConfig(), TlsConfig(ca_file="ca.pem")):
        with pytest.raises(ValueError, match=r"api_key is missing.*cert_file"):
            kind(tls=tls)


def test_a_client_certificate_sends_no_credential_unless_a_key_is_given() -> None:
    tls = TlsConfig(cert_file="me.pem", key_file="me.key")
    for key, metadata in ((None, ()), (SECRET, (("authorization", f"Bearer {SECRET}"),))):
        config = ClientConfig.of_caller(
            api_key=key, endpoint="lictor.example:7420", timeout_s=None, tls=tls, insecure=False
        )
        assert config.metadata() == metadata


@pytest.mark.parametrize("kind", [Lictor, AsyncLictor])
def test_a_license_key_goes_with_a_publishable_key(kind: type[Lictor | AsyncLictor]) -> None:
    for api_key, license_key, words in (
        ("sk_live_x", "PROAPP-1", "pk_"),
        (None, "PROAPP-1", "missing"),
        ("pk_live_x", "", "license_key is empty"),
        ("pk_live_x", "PRO APP", "license_key has"),
        ("pk_live_x", "PROAPP-1\r\nx: y", "license_key has"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            kind(api_key=api_key, license_key=license_key)
        assert "PRO" not in str(caught.value)


def test_a_license_key_is_sent_beside_its_publishable_key_and_shown_nowhere() -> None:
    config = ClientConfig.of_caller(
        api_key="pk_live_x",
        license_key=" PROAPP-1:2 ",
        endpoint="127.0.0.1:1",
        timeout_s=None,
        tls=None,
        insecure=False,
    )
    assert config.metadata() == (("authorization", "License pk_live_x:PROAPP-1:2"),)
    assert "PROAPP" not in repr(config)
    assert not validation.validate().request.HasField("license")  # pyright: ignore[reportArgumentType]


def test_half_a_client_certificate_is_refused() -> None:
    for half in ({"cert_file": "me.pem"}, {"key_file": "me.key"}):
        with pytest.raises(ValueError, match="both cert_file and key_file"):
            TlsConfig(**half)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        Lictor(api_key=SECRET, tls=TlsConfig(ca_file="nowhere.pem"))


def test_every_code_has_its_error_and_each_is_public() -> None:
    for name, kind in BY_CODE.items():
        error = error_of(grpc.StatusCode[name], "words", ())
        assert type(error) is kind
        assert getattr(lictor, kind.__name__) is kind


def test_a_damaged_status_leaves_code_and_message() -> None:
    error = error_of(grpc.StatusCode.NOT_FOUND, "words", [("grpc-status-details-bin", b"\xff\xff")])
    assert (error.code, error.message, error.reason) == ("NOT_FOUND", "words", "")


def test_errors_survive_another_process() -> None:
    error = lictor.NotFound(
        "words", code="NOT_FOUND", reason="LICENSE_NOT_FOUND", metadata={"id": "lic_1"}, request_id="c"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.reason, copy.metadata) == (
        lictor.NotFound,
        str(error),
        "LICENSE_NOT_FOUND",
        {"id": "lic_1"},
    )


def test_waits_are_random_between_10_and_100_ms_and_after_what_the_server_asks() -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    down = LictorError("down", code="UNAVAILABLE")
    tries = Tries(10, retry_safe=True, clock=lambda: 0.0, draw=draw)
    assert tries.wait_s(down) == 0.05
    assert tries.wait_s(LictorError("down", code="UNAVAILABLE", retry_after_s=2)) == 2.1
    with pytest.raises(LictorError):
        tries.wait_s(down)
    assert drawn == [(0.01, 0.05), (0.01, 0.1)]


def test_what_is_not_safe_is_tried_once() -> None:
    with pytest.raises(LictorError):
        Tries(10, retry_safe=False).wait_s(LictorError("down", code="UNAVAILABLE"))
