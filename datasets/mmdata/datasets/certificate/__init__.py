"""Certificates: what is known of each symbol and day, sealed; made by `certify`, compared by `verify`.

``docs/certificate.md`` is the format.
"""

from mmdata.datasets.certificate.certifying import CertifyReport, certify, certify_ingested
from mmdata.datasets.certificate.verifying import Difference, Recount, VerifyReport, verify

__all__ = [
    "CertifyReport",
    "Difference",
    "Recount",
    "VerifyReport",
    "certify",
    "certify_ingested",
    "verify",
]
