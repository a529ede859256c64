"""All guards, one after another."""

from __future__ import annotations

from tests.prove.mutation import (
    background_guards,
    caching_guards,
    checking_guards,
    copying_guards,
    fidelity_guards,
    importing_guards,
    interruption_guards,
    reading_guards,
    saving_guards,
    snapshot_guards,
    storage_guards,
    upkeep_guards,
)

MUTANTS = [
    *storage_guards.MUTANTS,
    *saving_guards.MUTANTS,
    *reading_guards.MUTANTS,
    *upkeep_guards.MUTANTS,
    *copying_guards.MUTANTS,
    *importing_guards.MUTANTS,
    *checking_guards.MUTANTS,
    *interruption_guards.MUTANTS,
    *caching_guards.MUTANTS,
    *snapshot_guards.MUTANTS,
    *background_guards.MUTANTS,
    *fidelity_guards.MUTANTS,
]
