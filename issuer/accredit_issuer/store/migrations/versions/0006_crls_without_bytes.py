"""Of a CRL its signature is kept, and no bytes: they follow from its entries.

Entries stand in another order than before, so no signature of before is over them: each CRL is made
anew at the next start, with the next number. Of removed authorities, whose keys are gone, nothing
is kept: nothing that they signed is valid.
"""

import sqlalchemy as sa
from alembic import op

from accredit_issuer.store.models import Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.rename_table("crl", "crl_before")
    op.create_table(
        "crl",
        sa.Column("authority", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("this_update", Moment(), nullable=False),
        sa.Column("next_update", Moment(), nullable=False),
        sa.Column("scheduled_at", Moment(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("authority", name=op.f("pk_crl")),
    )
    op.execute(
        "INSERT INTO crl (authority, number, this_update, next_update, scheduled_at, signature) "
        "SELECT authority, number, this_update, next_update, this_update, x'' FROM crl_before "
        "WHERE authority IN (SELECT id FROM authority WHERE state <> 'removed')"
    )
    op.execute("DELETE FROM revoked_certificate WHERE authority NOT IN (SELECT authority FROM crl)")
    op.drop_table("crl_before")
