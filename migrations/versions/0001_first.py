"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UNSETTLED = sa.text("kind IN ('newer', 'void')")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "stores",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("store_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("store", name="pk_stores"),
    )
    op.create_table(
        "runs",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("name", sa.String(120), nullable=True),
        sa.Column("monitor", sa.Text(), nullable=True),
        sa.Column("mode", sa.String(3), nullable=True),
        sa.Column("config", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("store", "path", name="pk_runs"),
        sa.ForeignKeyConstraint(["store"], ["stores.store"], name="fk_runs_stores"),
    )
    op.create_table(
        "journal",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("time", sa.String(27), nullable=True),
        sa.Column("entry", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("store", "path", "number", name="pk_journal"),
        sa.ForeignKeyConstraint(
            ["store", "path"], ["runs.store", "runs.path"], name="fk_journal_runs"
        ),
    )
    op.create_table(
        "tags",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("tag", sa.String(120), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store", "path", "tag", name="pk_tags"),
        sa.ForeignKeyConstraint(
            ["store", "path"], ["runs.store", "runs.path"], name="fk_tags_runs"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "versions",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("save_id", sa.String(36), nullable=True),
        sa.Column("created_at", sa.String(27), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("torch_version", sa.Text(), nullable=True),
        sa.Column("parent_path", sa.Text(), nullable=True),
        sa.Column("parent_version", sa.BigInteger(), nullable=True),
        sa.Column("config", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("damage", sa.Text(), nullable=True),
        sa.Column("head", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("store", "path", "version", name="pk_versions"),
        sa.ForeignKeyConstraint(
            ["store", "path"], ["runs.store", "runs.path"], name="fk_versions_runs"
        ),
    )
    op.create_index(
        "ix_versions_unsettled",
        "versions",
        ["store", "path", "version"],
        sqlite_where=UNSETTLED,
        postgresql_where=UNSETTLED,
    )
    op.create_table(
        "metrics",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("store", "path", "name", "version", name="pk_metrics"),
        sa.ForeignKeyConstraint(
            ["store", "path", "version"],
            ["versions.store", "versions.path", "versions.version"],
            name="fk_metrics_versions",
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop all tables: the index is rebuilt from the store."""
    for table in ("metrics", "versions", "tags", "journal", "runs", "stores"):
        op.drop_table(table)
