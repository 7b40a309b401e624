"""Validations as anybody may send them: each field absent, explicit, empty, good and bad, and in all forms on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.common.v1.common_pb2 import (
    Consistency,
    FingerprintSet,
    LicenseSelector,
    MachineIdentity,
    NamedFingerprint,
    RevisionToken,
    View,
    WorkloadIdentity,
)
from lictor.license.v1 import validation_service_pb2 as pb

from tests.consistency.bazaar import BAD, GOOD, PARTS, Bazaar, Caller, identity_of

T = TypeVar("T")
VALIDATE: Final = "/lictor.license.v1.ValidationService/ValidateLicense"
BATCH: Final = "/lictor.license.v1.ValidationService/BatchValidateLicenses"
WHO: Final = "/lictor.account.v1.AccountService/WhoAmI"
SELECTORS: Final = ("key", "id", "key in lower case", "key with blanks", "old key", "none", "unknown", "unknown id", "of live",
                    "id of live", "too long", "empty key")  # fmt: skip
USERS: Final = ("", "customer", "other customer", "email", "subject", "nobody", "empty", "empty email")
LISTS: Final = ("", "none", "a b", "b a", "a a", "BAD")
CONSISTENCIES: Final = ("", "empty", "leased", "record", "token", "damaged")
IDENTITIES: Final = ("", "known", "another", "set", "half", "other half", "no set", "workload", "too short", "unset")
MACHINES: Final = ("", "own", "another's", "unknown", "BAD")
COMPONENTS: Final = ("", "none", "cpu", "gpu cpu", "cpu board", "wrong", "cpu cpu", "BAD")
FORMS: Final = ("plain", "twice", "backwards", "unknown field", "unknown inside", "empty tier", "empty product",
                "another product first")  # fmt: skip
SPELLINGS: Final = ("as it is", "lower", "UPPER", "two blanks", "certificate", "header", "both", "in the other's place",
                    "trailing")  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One validation, by the words above; `n` is the number of a license."""

    n: int
    selector: str
    view: int
    tier: str
    product: str
    policy: int | None
    user: str
    entitlements: str
    consistency: str
    form: str
    identity: str = ""
    machine: str = ""
    components: str = ""


@dataclass(frozen=True)
class Ask:
    """Who asks what: one shape, several in a batch, or with none who the caller is."""

    caller: str
    spelling: str
    batched: bool
    shapes: Sequence[Shape]


def mostly(usual: T, among: Sequence[T], times: int = 2) -> st.SearchStrategy[T]:
    """`usual`, so many times as often as all the others together."""
    return st.sampled_from([usual] * times * len(among) + [*among])


shapes = st.builds(
    Shape,
    n=st.integers(0, 3),
    selector=mostly("key", SELECTORS, 1),
    view=mostly(0, (View.DECISION, View.BASIC, View.FULL, 99)),
    tier=mostly("", ("free", "pro", "plus", "NO TIER")),
    product=mostly("", ("AA", "BB", "id")),
    policy=mostly(None, (0, 1, 2, 9)),
    user=mostly("", USERS),
    entitlements=mostly("", LISTS),
    consistency=mostly("", CONSISTENCIES, 3),
    form=mostly("plain", FORMS),
    identity=mostly("", IDENTITIES, 1),
    machine=mostly("", MACHINES),
    components=mostly("", COMPONENTS),
)
plain = st.builds(
    Shape, n=st.integers(0, 3), selector=st.sampled_from(("key", "id", "none")), view=st.just(0), tier=st.just(""),
    product=st.sampled_from(("", "AA")), policy=st.none(), user=st.just(""), entitlements=st.just(""),
    consistency=st.just(""), form=st.just("plain"), identity=st.sampled_from(("", "known")),
)  # fmt: skip
asks = st.builds(
    Ask,
    caller=st.sampled_from((*GOOD * 4, *BAD)),
    spelling=mostly("as it is", SPELLINGS, 3),
    batched=mostly(False, (False, True), 1),
    shapes=st.lists(plain | shapes, min_size=1, max_size=1) | st.lists(plain | shapes, max_size=4),
)

_BARE: Final[dict[str, Any]] = {
    "view": 0, "tier": "", "product": "", "policy": None, "user": "", "entitlements": "", "consistency": "", "form": "plain"
}  # fmt: skip


def _plainly(
    caller: str, selector: str, n: int = 0, *, identity: str = "", machine: str = "", components: str = ""
) -> Ask:
    shape = Shape(n=n, selector=selector, **_BARE, identity=identity, machine=machine, components=components)
    return Ask(caller, "as it is", False, [shape])


CHOIR: Final = (
    *(_plainly("secret", "key", n) for n in range(4)), _plainly("brief", "id"), _plainly("pk brief", "key"),
    *(_plainly(f"license {n}", "none", n) for n in (0, 2)), _plainly("license brief", "none"), _plainly("workload", "id", 1),
    *(_plainly("secret", "key", n, identity="known", components="gpu cpu") for n in (0, 1)),
    _plainly("license 0", "none", machine="own"), _plainly("secret", "id", 1, identity="half", machine="own"),
    *(Ask(caller, "as it is", False, []) for caller in ("session", "license 0", "pk brief")),
    *(Ask(caller, "in the other's place", False, []) for caller in ("secret", "workload")),
)  # fmt: skip
"""What is asked all the time: of every license, and by all whom something may end."""


def called(it: Bazaar, ask: Ask) -> Caller:
    """The caller, and what somebody might try in its name."""
    known = it.callers[ask.caller]
    if known.authorization is None:
        shown = known.peer_identity
        by_certificate = {name: Caller(f"{name} {shown}") for name in ("certificate", "header")}
        return {**by_certificate, "in the other's place": Caller(shown)}.get(ask.spelling, known)
    shown = known.authorization
    scheme, blank, rest = shown.partition(" ")
    other = it.callers["workload"].peer_identity
    spelled = {
        "lower": Caller(scheme.lower() + blank + rest), "UPPER": Caller(scheme.upper() + blank + rest),
        "two blanks": Caller(f"{scheme}  {rest}"), "certificate": Caller(f"certificate {shown}"),
        "header": Caller(f"header {shown}"), "both": Caller(shown, other), "in the other's place": Caller(None, shown),
        "trailing": Caller(f"{shown}:"),
    }  # fmt: skip
    return spelled.get(ask.spelling, known)


def message_of(it: Bazaar, ask: Ask) -> tuple[str, bytes]:
    """The method's path, and the request as it is on the wire."""
    if not ask.shapes:
        return WHO, accounts.WhoAmIRequest().SerializeToString()
    if not ask.batched:
        return VALIDATE, _form(_request(it, ask.shapes[0]), ask.shapes[0].form)
    # Most of what is asked alone is refused in a batch: views, and how fresh.
    batch = pb.BatchValidateLicensesRequest(view=ask.shapes[0].view)  # pyright: ignore[reportArgumentType]
    for shape in ask.shapes:
        one = _request(it, shape)
        one.view = View.KIND_UNSPECIFIED
        one.ClearField("consistency")
        batch.requests.add().MergeFromString(_form(one, shape.form))
    return BATCH, batch.SerializeToString()


def _request(it: Bazaar, shape: Shape) -> pb.ValidateLicenseRequest:
    product = it.product_id if shape.product == "id" else shape.product
    policy_id = "" if shape.policy is None else ([*it.policies, "pol_none"][min(shape.policy, 3)])
    request = pb.ValidateLicenseRequest(
        view=shape.view, required_tier=shape.tier, product=product, policy_id=policy_id  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    selector = _selector(it, shape)
    if selector is not None:
        request.license.CopyFrom(selector)
    if shape.user:
        request.user.CopyFrom(_user(it, shape.user))
    if shape.entitlements:
        named = [] if shape.entitlements == "none" else shape.entitlements.split()
        request.required_entitlements.CopyFrom(pb.EntitlementsScope(feature_keys=named))
    if shape.identity:
        request.identity.CopyFrom(_identity(shape))
    if shape.machine:
        request.machine_id = _machine_id(it, shape)
    if shape.components:
        named = [] if shape.components == "none" else shape.components.split()
        request.components.CopyFrom(pb.ComponentsScope(components=[_PARTS[name] for name in named]))
    if shape.consistency:
        request.consistency.CopyFrom(_consistency(it, shape.consistency))
    return request


def _selector(it: Bazaar, shape: Shape) -> LicenseSelector | None:
    key = it.keys[shape.n][0]
    by: dict[str, Any] = {
        "key": {"license_key": key},
        "id": {"license_id": it.licenses[shape.n]},
        "key in lower case": {"license_key": key.lower().replace("0", "o")},
        "key with blanks": {"license_key": f" {key} "},
        "old key": {"license_key": it.keys[shape.n][-1]},
        "unknown": {"license_key": "NO-SUCH-KEY"},
        "unknown id": {"license_id": "lic_none"},
        "of live": {"license_key": it.foreign_key},
        "id of live": {"license_id": it.foreign_id},
        "too long": {"license_key": "K" * 256},
        "empty key": {"license_key": ""},
    }
    return None if shape.selector == "none" else LicenseSelector(**by[shape.selector])


def _user(it: Bazaar, word: str) -> pb.UserScope:
    by: dict[str, Any] = {
        "customer": {"customer_id": it.customers[0]}, "other customer": {"customer_id": it.customers[1]},
        "email": {"email": "ADA@example.com"}, "subject": {"subject_ref": "u-1"}, "nobody": {"subject_ref": "nobody"},
        "empty": {}, "empty email": {"email": ""},
    }  # fmt: skip
    return pb.UserScope(**by[word])


_PARTS: Final = {
    **{part.name: part for part in PARTS}, "board": NamedFingerprint(name="board", fingerprint="another-serial"),
    "wrong": NamedFingerprint(name="cpu", fingerprint="another-serial"), "BAD": NamedFingerprint(name="A B", fingerprint="x"),
}  # fmt: skip


def _identity(shape: Shape) -> MachineIdentity:
    named = {name: NamedFingerprint(name=name, fingerprint=f"{name}-of-{shape.n}") for name in ("board", "disk")}
    lost = NamedFingerprint(name="disk", fingerprint="another-disk")
    sets = {"set": [*named.values()], "half": [named["board"]], "other half": [named["board"], lost], "no set": []}
    if shape.identity in sets:
        return MachineIdentity(fingerprints=FingerprintSet(fingerprints=sets[shape.identity]))
    by = {
        "known": identity_of(shape.n), "another": identity_of(shape.n + 2),
        "workload": MachineIdentity(workload=WorkloadIdentity()), "too short": MachineIdentity(fingerprint="short"),
    }  # fmt: skip
    return by.get(shape.identity, MachineIdentity())


def _machine_id(it: Bazaar, shape: Shape) -> str:
    """Before a machine has come, and after it has gone, one that there is not."""
    by = {"own": shape.n, "another's": (shape.n + 1) % 2}
    return it.machines.get(by.get(shape.machine, -1), "not an id" if shape.machine == "BAD" else f"mach_{'0' * 32}")


def _consistency(it: Bazaar, word: str) -> Consistency:
    match word:
        case "leased":
            return Consistency(leased=Consistency.Leased())
        case "record":
            return Consistency(fully_consistent=Consistency.FullyConsistent())
        case "token" | "damaged":
            token = it.token if word == "token" else RevisionToken(token="damaged")
            return Consistency(at_least_as_fresh=Consistency.AtLeastAsFresh(revision_token=token))
        case _:
            return Consistency()


def _form(request: pb.ValidateLicenseRequest, form: str) -> bytes:
    raw = request.SerializeToString()
    forms = {
        "twice": raw + raw, "backwards": b"".join(reversed(fields_of(raw))), "unknown field": raw + b"\x9a\x06\x03abc",
        "unknown inside": raw + b"\x0a\x06\x9a\x06\x03abc", "empty tier": raw + b"\x1a\x00", "empty product": raw + b"\x22\x00",
        "another product first": b"\x22\x05OTHER" + raw,
    }  # fmt: skip
    return forms.get(form, raw)


def fields_of(raw: bytes) -> list[bytes]:
    """The fields of a message whose numbers are below 16: varints, and what has a length."""
    found: list[bytes] = []
    while raw:
        value, end = _varint(raw, 1)
        if raw[0] & 7 == 2:
            end += value
        found.append(raw[:end])
        raw = raw[end:]
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            return value, at
