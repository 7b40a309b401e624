"""The first promise: a license is issued and validated."""

from __future__ import annotations

from tests.helpers.suite import World


async def test_a_license_is_issued_and_validated(world: World) -> None:
    product = (await world.test.products.create(code="PROAPP", display_name="Pro App")).product
    policy = (
        await world.test.policies.create(
            product_id=product.product_id, display_name="Desktop", template="desktop_app", require_fingerprint=False
        )
    ).policy
    issued = await world.test.licenses.create(policy_id=policy.policy_id, customer_email="ada@example.com")

    result = await world.test.validate(key=issued.key)

    assert (result.valid, result.code, result.license_id) == (True, "VALID", issued.license.license_id)
