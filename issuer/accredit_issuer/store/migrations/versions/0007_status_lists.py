"""Where a task token's status stands: the list, and the index in it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("credential", sa.Column("status_list", sa.String(), nullable=True))
    op.add_column("credential", sa.Column("status_index", sa.Integer(), nullable=True))
