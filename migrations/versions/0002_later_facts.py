"""What the journal says of versions: retirement, notes, damage, later metrics, children.

All rows of the index are removed: the next sync of each run fills them in again from its manifests
and its journal, which are the truth, so that versions indexed before have these facts too.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DAMAGED = sa.text("(kind = 'damaged' OR damage_found IS NOT NULL)")
UNSETTLED = sa.text("kind IN ('damaged', 'newer', 'void')")
UNSETTLED_BEFORE = sa.text("kind IN ('newer', 'void')")
LIVE = sa.text("retired_at IS NULL")
UNSETTLED_ENTRY = sa.text("(kind = 'void' OR awaits IS NOT NULL)")
TABLES = ("metrics", "versions", "tags", "journal", "runs", "stores")
VERSION_INDEXES = (
    "ix_versions_unsettled",
    "ix_versions_live",
    "ix_versions_damaged",
    "ix_versions_save_id",
)
VERSION_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "retired_at": sa.String(27),
    "retired_by": sa.Text(),
    "retired_entry": sa.BigInteger(),
    "note": sa.Text(),
    "damage_found": sa.Text(),
    "late_metrics": sa.JSON(none_as_null=True),
}


def upgrade() -> None:
    """Empty the index, and add what it lacks."""
    for table in TABLES:
        op.execute(sa.delete(sa.table(table)))
    for name, kind in VERSION_COLUMNS.items():
        op.add_column("versions", sa.Column(name, kind, nullable=True))
    op.add_column("runs", sa.Column("keep", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("journal", sa.Column("awaits", sa.BigInteger(), nullable=True))
    op.drop_index("ix_versions_unsettled", "versions")
    for name, chosen in (
        ("ix_versions_unsettled", UNSETTLED),
        ("ix_versions_live", LIVE),
        ("ix_versions_damaged", DAMAGED),
    ):
        _index_versions(name, chosen)
    op.create_index("ix_versions_save_id", "versions", ["store", "path", "save_id", "version"])
    op.create_index(
        "ix_journal_unsettled",
        "journal",
        ["store", "path", "number"],
        sqlite_where=UNSETTLED_ENTRY,
        postgresql_where=UNSETTLED_ENTRY,
    )
    op.create_table(
        "children",
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("run", sa.String(120), nullable=False),
        sa.Column("save_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("store", "path", "version", "number", name="pk_children"),
        sa.ForeignKeyConstraint(
            ["store", "path"], ["runs.store", "runs.path"], name="fk_children_runs"
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Empty the index, whose rows are not what 0001 would index, and take it all away again."""
    op.drop_table("children")
    for table in TABLES:
        op.execute(sa.delete(sa.table(table)))
    op.drop_index("ix_journal_unsettled", "journal")
    for name in VERSION_INDEXES:
        op.drop_index(name, "versions")
    _index_versions("ix_versions_unsettled", UNSETTLED_BEFORE)
    op.drop_column("journal", "awaits")
    op.drop_column("runs", "keep")
    for name in VERSION_COLUMNS:
        op.drop_column("versions", name)


def _index_versions(name: str, chosen: sa.TextClause) -> None:
    op.create_index(
        name,
        "versions",
        ["store", "path", "version"],
        sqlite_where=chosen,
        postgresql_where=chosen,
    )
