"""The pure pieces of freshness, each against a simple model of what it promises."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto.root_secret import RootSecret
from shared.freshness import memory as memory_module
from shared.freshness.changes import ChangeMap
from shared.freshness.lease import LeaseTerms
from shared.freshness.memory import ENTRY_BYTES, Fact, Memory
from shared.freshness.snapshot import Snapshot
from shared.freshness.token import Revision, RevisionTokens
from tests.helpers.snapshots import HIGH, LOW, seen, snapshots


@given(snapshots())
def test_a_snapshot_is_the_same_after_its_text(snapshot: Snapshot) -> None:
    assert Snapshot.parse(str(snapshot)) == snapshot


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:3:4", "a:2:", "1:2:x", "1:2:3,"])
def test_other_texts_are_no_snapshots(text: str) -> None:
    with pytest.raises(ValueError):
        Snapshot.parse(text)


@settings(max_examples=500)
@given(snapshots(), snapshots())
def test_a_snapshot_covers_another_when_it_sees_all_that_the_other_sees(one: Snapshot, other: Snapshot) -> None:
    assert {xid for xid in range(HIGH + 2) if one.sees(xid)} == seen(one)
    assert one.covers(other) is (seen(one) >= seen(other))


keys = st.sampled_from(["license:a", "license:b", "policy:a"])
steps = st.lists(st.tuples(keys, st.integers(LOW, HIGH)) | st.tuples(keys, snapshots()), max_size=30)


@settings(max_examples=300)
@given(steps, snapshots())
def test_the_map_allows_what_saw_every_change(done: list[tuple[str, int | Snapshot]], read_at: Snapshot) -> None:
    """Of what covers the base; of anything else nobody asks it."""
    changes, model = ChangeMap(), set[tuple[str, int]]()
    for key, what in done:
        if isinstance(what, Snapshot):
            changes.forget(key, what)
            model -= {(k, xid) for k, xid in model if k == key and what.sees(xid)}
        else:
            changes.add(key, what)
            model.add((key, what))
        assert len(changes) == len(model)
        assert set(changes.keys()) == {k for k, _ in model}
        for asked in ("license:a", "license:b", "policy:a"):
            allowed = all(read_at.sees(xid) for k, xid in model if k == asked)
            assert changes.allows(asked, read_at) is allowed
    changes.clear()
    assert (len(changes), changes.keys()) == (0, [])


names = st.sampled_from([f"license:{n}" for n in range(6)])
facts = st.builds(Fact, key=names, value=st.integers(1, 9), size_bytes=st.integers(0, 400))
absent = st.builds(Fact, key=names, value=st.none(), size_bytes=st.just(0))


@settings(max_examples=300)
@given(
    st.lists(facts | absent | names | st.tuples(names) | st.frozensets(names, min_size=1, max_size=1), max_size=40),
    st.integers(0, 1500),
)
def test_memory_keeps_what_was_used_last_within_its_bytes(
    done: list[Fact | str | tuple[str] | frozenset[str]], max_bytes: int
) -> None:
    """A fact is put, a name is read, a tuple is dropped, an answer made of a set is given again. The model is a list, that
    used last in the end, and which of them were in such an answer."""
    memory, model, missing, again = Memory(max_bytes), list[Fact](), dict[str, Fact](), set[str]()

    def size(fact: Fact) -> int:
        return ENTRY_BYTES + len(fact.key) + fact.size_bytes

    for step in done:
        held, losses = [*model, *missing.values()], memory.losses
        name = step.key if isinstance(step, Fact) else step if isinstance(step, str) else next(iter(step))
        known = next((one for one in model if one.key == name), None)
        match step:
            case Fact():
                model = [one for one in model if one.key != name]
                missing.pop(name, None)
                if step.value is None:
                    missing[name] = step
                elif known is not None and known.value == step.value:  # it stays what it is
                    model.append(known)
                else:
                    again.discard(name)
                    model.append(step)
                memory.put(step)
            case str():
                assert memory.get(name) is (known or missing.get(name))
                if known is not None:
                    model.remove(known)
                    model.append(known)
            case frozenset():
                asked = known or missing.get(name)
                assert asked is None or memory.holds([asked])
                again |= step
            case _:
                memory.drop(name)
                again.discard(name)
                model = [one for one in model if one.key != name]
                missing.pop(name, None)
        while sum(size(one) for one in model) > max_bytes:
            while model[0].key in again:
                again.remove(model[0].key)
                model.append(model.pop(0))
            model.pop(0)
        assert memory.size_bytes == sum(size(one) for one in model) <= max_bytes
        assert len(memory) == len(model) + len(missing)
        now = [*model, *missing.values()]
        gone = [one for one in held if not any(one is other for other in now)]
        assert memory.losses > losses or not gone
        assert all(one.held_by is not None for one in now)
        assert not any(memory.holds([one]) for one in gone)
    losses = memory.losses
    memory.clear()
    assert (len(memory), memory.size_bytes) == (0, 0)
    assert memory.losses > losses
    assert not any(memory.holds([one]) for one in [*model, *missing.values()])


def test_strangers_keys_drive_out_nobodys_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_ABSENT", 3)
    memory = Memory(1000)
    memory.put(Fact("license:a", 1, 100))
    for n in range(10):
        memory.put(Fact(f"license_key:{n}", None, 0))
    assert memory.get("license:a") is not None
    assert [n for n in range(10) if memory.get(f"license_key:{n}") is not None] == [7, 8, 9]
    assert memory.losses == 7


@pytest.mark.parametrize(
    ("l_ms", "previous_l_ms", "just_changed", "lease_ms", "wait_ms"),
    [
        (250, 250, False, 250, 257.5),
        (250, 250, True, 250, 257.5),
        (100, 400, True, 100, 409),
        (400, 100, True, 100, 409),
        (100, 400, False, 100, 106),
        (400, 100, False, 400, 409),
        (10, 10, False, 10, 15.1),
        (10_000, 10, True, 10, 10_105),
    ],
)
def test_leases_are_the_shorter_and_waits_the_longer_while_l_changes(
    l_ms: int, previous_l_ms: int, just_changed: bool, lease_ms: float, wait_ms: float
) -> None:
    terms = LeaseTerms(l_ms, previous_l_ms, just_changed)
    assert terms.lease_s * 1000 == pytest.approx(lease_ms)
    assert terms.wait_s * 1000 == pytest.approx(wait_ms)


@given(st.integers(10, 10_000), st.integers(10, 10_000), st.booleans(), st.booleans())
def test_every_wait_is_longer_than_every_lease_of_its_minute(
    l_ms: int, previous_l_ms: int, validating_knows: bool, revoking_knows: bool
) -> None:
    """Whichever of the two has heard of the change already, in the minute after it."""
    old, new = LeaseTerms(previous_l_ms, previous_l_ms, False), LeaseTerms(l_ms, previous_l_ms, True)
    lease_s = (new if validating_knows else old).lease_s
    assert (new if revoking_knows else old).wait_s > lease_s


ONE, TWO = RootSecret(((1, b"a" * 32),)), RootSecret(((1, b"b" * 32),))
revisions = st.builds(Revision, st.integers(0, 2**63 - 1), st.uuids(), st.integers(3, 2**63 - 1))


@given(revisions)
def test_a_token_names_its_revision(revision: Revision) -> None:
    token = RevisionTokens(ONE).make(revision)
    assert RevisionTokens(ONE).read(token) == revision
    assert len(token) == 67
    assert token.replace("-", "").replace("_", "").isalnum()


@given(revisions, st.integers(0, 49), st.integers(1, 255))
def test_a_token_that_was_changed_is_none(revision: Revision, at: int, by: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(RevisionTokens(ONE).make(revision) + "="))
    raw[at] ^= by
    with pytest.raises(ValueError):
        RevisionTokens(ONE).read(base64.urlsafe_b64encode(raw).decode().rstrip("="))


@given(revisions, st.integers(0, 66))
def test_a_part_of_a_token_is_none(revision: Revision, length: int) -> None:
    token = RevisionTokens(ONE).make(revision)
    for part in (token[:length], token[-length:] if length else "", token + token[:length] + "A"):
        with pytest.raises(ValueError):
            RevisionTokens(ONE).read(part)


@settings(max_examples=50)
@given(st.text(max_size=80))
def test_any_other_text_is_no_token(text: str) -> None:
    with pytest.raises(ValueError):
        RevisionTokens(ONE).read(text)


def test_tokens_belong_to_the_root_secret() -> None:
    revision = Revision(7, UUID(int=9), 11)
    rotated = RootSecret(((2, b"c" * 32), *ONE.versions))
    token = RevisionTokens(ONE).make(revision)
    with pytest.raises(ValueError):
        RevisionTokens(TWO).read(token)
    assert RevisionTokens(rotated).read(token) == revision
    newer = RevisionTokens(rotated).make(revision)
    assert newer != token
    assert RevisionTokens(rotated).read(newer) == revision
    with pytest.raises(ValueError):
        RevisionTokens(ONE).read(newer)
