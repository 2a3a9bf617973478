"""What a fact costs does not grow with what lives beside its target."""

from typing import Any

import pytest
from sqlalchemy import event
from support.offline import Offline

KINDS = "ix_credential_kind_expires_at"  # reads everything that lives


@pytest.mark.parametrize("kind", ["instance", "serial", "agent", "manifest", "namespace"])
def test_certificates_are_found_by_what_the_fact_is_about(offline: Offline, kind: str) -> None:
    """Rows of others are not read: the database looks the target up."""
    svid = offline.agent()
    value = {
        "instance": svid.instance,
        "serial": svid.serial,
        "agent": "support/summarizer",
        "manifest": svid.manifest,
        "namespace": "support",
    }[kind]
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, text: str, values: Any, *_: object) -> None:
        if text.startswith("INSERT INTO revoked_certificate"):
            asked.append((text, values))

    event.listen(offline.issuer.database.writing, "before_cursor_execute", note)
    offline.state(f"{kind}:{value}")
    ((text, values),) = asked
    with offline.issuer.database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
    steps = [row.detail for row in plan]
    assert any("SEARCH credential USING INDEX" in step for step in steps)
    assert not any(KINDS in step or step.startswith("SCAN credential") for step in steps)
    assert offline.is_on_crl(svid)
