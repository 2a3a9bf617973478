"""Alembic's way in: runs migrations on the connection that ``Database.migrate`` passes."""

from alembic import context

from accredit_issuer.store.models import Model

context.configure(
    connection=context.config.attributes["connection"],
    user_module_prefix="",
    target_metadata=Model.metadata,
    render_as_batch=True,
)
context.run_migrations()
