"""The errors of mmdata, drawn as a tree; each class is one thing that a caller would treat differently.

MmdataError                 a sentence for a person, and the exit status of the command that meets it
├── UsageError         2    wrong usage or configuration; a lock that somebody else holds
│   └── ConfigError    2    a configuration file: names file and key
├── VenueError         3    the venue or the network: nothing came, or what came cannot be used
├── DiskError          4    the disk: full, unwritable, unreadable
└── DatasetError       1    what lies in a dataset is not what its schema says
    └── ReplacedError  1    a file was replaced between being listed and being read: read again
"""

from __future__ import annotations


class MmdataError(Exception):
    """Base of every error that mmdata raises on purpose; ``str`` is a sentence for a person.

    The sentence says which thing, what was found, what was expected and what happens now.
    """

    exit_code = 70


class UsageError(MmdataError):
    """Wrong usage, wrong configuration, or a lock that somebody else holds."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration that cannot be used; the sentence names file, key, what was found, what may stand."""


class VenueError(MmdataError):
    """The venue or the network failed in a way that retrying will not mend in time."""

    exit_code = 3


class DiskError(MmdataError):
    """The disk is full, unwritable or unreadable; what was recorded before stays as it is."""

    exit_code = 4


class DatasetError(MmdataError):
    """A file of a dataset is damaged or is not what its schema says."""

    exit_code = 1


class ReplacedError(DatasetError):
    """A file was replaced (its day compacted) or removed since it was listed; reading again finds what is."""
