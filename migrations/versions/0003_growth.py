"""Indexes for long runs: the best by a metric, and journal entries by their kind.

No row is touched.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indexes."""
    op.create_index("ix_metrics_value", "metrics", ["store", "path", "name", "value", "version"])
    op.create_index("ix_journal_kind", "journal", ["kind", "store", "path", "number"])
    op.drop_index("ix_versions_save_id", "versions")
    op.create_index("ix_versions_save_id", "versions", ["save_id", "store", "path", "version"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_versions_save_id", "versions")
    op.create_index("ix_versions_save_id", "versions", ["store", "path", "save_id", "version"])
    op.drop_index("ix_journal_kind", "journal")
    op.drop_index("ix_metrics_value", "metrics")
