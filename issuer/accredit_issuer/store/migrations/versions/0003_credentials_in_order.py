"""Credentials in the order of their writing, and what was released.

Agent, manifest and namespace follow from the instance: each index on them cost as much as the row.
"""

import sqlalchemy as sa
from alembic import op

from accredit_issuer.store.models import Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "credential_in_order",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("instance", sa.String(), nullable=False),
        sa.Column("admin", sa.String(), nullable=True),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("authority", sa.String(), nullable=False),
        sa.Column("decided_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_credential")),
        sa.UniqueConstraint("id", name=op.f("uq_credential_id")),
    )
    op.create_table(
        "release_in_order",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_release")),
    )
    op.execute(
        "INSERT INTO credential_in_order (id, kind, subject, instance, admin, task, authority, "
        "decided_at, expires_at) SELECT id, kind, subject, instance, admin, task, authority, "
        "decided_at, expires_at FROM credential ORDER BY decided_at"
    )
    op.execute(
        "INSERT INTO release_in_order (number, log_index) SELECT c.number, r.log_index "
        'FROM "release" r JOIN credential_in_order c ON c.id = r.credential'
    )
    for table in ("release", "credential"):
        op.drop_table(table)
        op.rename_table(f"{table}_in_order", table)
    with op.batch_alter_table("credential") as batch_op:
        batch_op.create_index(batch_op.f("ix_credential_instance"), ["instance"], unique=False)
        batch_op.create_index("ix_credential_kind_expires_at", ["kind", "expires_at"], unique=False)
