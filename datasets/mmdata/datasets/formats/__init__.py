"""Readers and writers of other people's table formats, a module each."""
