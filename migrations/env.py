"""Where Alembic starts: runs the revisions on the connection and in the transaction of its caller.

``ckptstore migrate`` is the way in; it opens the database, takes the lock and says what it did.
"""

from __future__ import annotations

from alembic import context

from ckptstore.catalog.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite can roll back DDL; Alembic assumes it can't.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
