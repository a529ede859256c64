"""The places bytes live; the only part of ckptstore that knows a filesystem."""
