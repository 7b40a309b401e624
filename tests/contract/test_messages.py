"""Every message, field, enum and service is explained; secrets are marked; enums begin with the value that is never sent."""

from __future__ import annotations

import re

from tests.contract.reading import elements, enums, messages

SECRET_NAME = re.compile(r"^(key|secret|password|fingerprint)$|_(api_key|secret|key|password)$|^license_token$")
SHOWN_ONCE = re.compile(r"shown this once", re.IGNORECASE)


def test_everything_has_a_comment_that_is_a_sentence() -> None:
    bare = [element.name for element in elements() if not element.comment.endswith((".", "?"))]
    assert bare == []


def test_a_comment_of_a_message_or_a_service_begins_with_its_name() -> None:
    wrong = [
        element.name
        for element in elements()
        if element.name in messages() and not element.comment.startswith(element.name.rpartition(".")[2] + " ")
    ]
    assert wrong == []


def test_secrets_are_redacted_and_nothing_else_is() -> None:
    fields = [field for message in messages().values() for field in message.fields.values()]
    by_name = {f"{f.message}.{f.name}" for f in fields if f.textual and SECRET_NAME.search(f.name)}
    by_comment = {f"{f.message}.{f.name}" for f in fields if f.textual and SHOWN_ONCE.search(f.comment)}
    redacted = {f"{f.message}.{f.name}" for f in fields if f.redacted}
    assert len(redacted) >= 6
    assert by_name | by_comment == redacted


def test_enums_begin_with_an_unspecified_value_and_are_nested() -> None:
    for name, enum in enums():
        assert enum.value[0].number == 0, name
        assert enum.value[0].name.endswith("_UNSPECIFIED"), name
        assert name.rpartition(".")[0] in messages(), f"{name} must be nested in a message of its own"


def test_names_of_values_are_in_one_case_within_an_enum() -> None:
    for name, enum in enums():
        rest = [value.name for value in enum.value[1:]]
        assert all(value.isupper() for value in rest) or all(value.islower() for value in rest), name


def test_resources_have_what_all_have_in_common() -> None:
    common = {"create_time", "update_time", "etag", "revision", "external_id", "display_name"}
    for name in (
        "account.v1.Account",
        "account.v1.ApiKey",
        "account.v1.WorkloadBinding",
        "license.v1.Product",
        "license.v1.Tier",
        "license.v1.Policy",
        "license.v1.License",
    ):
        assert common <= messages()[f"lictor.{name}"].fields.keys(), name
