"""Readers and writers of other people's table formats; what each holds and drops: ``docs/formats.md``."""
