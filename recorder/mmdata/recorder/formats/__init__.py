"""Readers of other people's wire captures: each yields the lines that `ingest` takes."""
