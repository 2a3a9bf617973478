"""Join tokens, as the issuer keeps them: looked up, and spent once."""

from datetime import datetime

from sqlalchemy import select, update

from accredit_attestors.contract import JoinTokenRecord
from accredit_credentials.spiffe_id import AgentId
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import join_tokens
from accredit_issuer.store.writer import Transaction


class JoinTokens:
    """The join tokens of one issuer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, token_id: str) -> JoinTokenRecord | None:
        """What is kept of a join token; None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                select(join_tokens).where(join_tokens.c.id == token_id)
            ).first()
        if row is None:
            return None
        return JoinTokenRecord(row.id, row.secret_sha256, AgentId.parse(row.agent), row.expires_at)

    def is_unspent(self, known: JoinTokenRecord, now: datetime) -> bool:
        """Whether it can still be used."""
        with self._database.read() as connection:
            redeemed_by = connection.scalar(
                select(join_tokens.c.redeemed_by).where(join_tokens.c.id == known.id)
            )
        return redeemed_by is None and now < known.expires_at

    @staticmethod
    def spend(transaction: Transaction, token_id: str | None, instance: str) -> None:
        """Use it up, for this instance.

        Raises:
            Refusal: it was used before.
        """
        spent = transaction.execute(
            update(join_tokens)
            .where(join_tokens.c.id == token_id, join_tokens.c.redeemed_by.is_(None))
            .values(redeemed_by=instance)
        )
        if spent.rowcount != 1:
            raise Refusal(Kind.ATTESTATION_REFUSED, "the join token was used before")
