"""Client of Lictor, gRPC services for software licensing and entitlements.

from lictor import Lictor

client = Lictor(api_key="sk_live_...")
result = client.validate(key="PROAPP-...")
if result.valid: ...
"""

from ._core.async_client import AsyncLictor
from ._core.config import DEFAULT_ENDPOINT, TlsConfig
from ._core.convert import UNSET
from ._core.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    LictorError,
    NoStableIdentityError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from ._core.fingerprint import FactUse, Fingerprint
from ._core.offline_errors import (
    ClockSetBack,
    FileEncrypted,
    FileExpired,
    FileKeyUnknown,
    FileMalformed,
    FileNotDecrypted,
    FileNotYetValid,
    FileOfOtherKind,
    FileOfOtherMachine,
    FileOfOtherProduct,
    FileRolledBack,
    FileSignatureInvalid,
    FileStateUnreadable,
    LicenseFileError,
)
from ._core.offline_file import VerifiedFile, verify_license_file, verify_machine_file
from ._core.requests_validation import Explanation, Validation
from ._core.requests_watch import LicenseChange
from ._core.sync_client import Lictor
from ._core.this_machine import fingerprint
from ._core.validation_result import ValidationResult

__all__ = [
    "DEFAULT_ENDPOINT",
    "UNSET",
    "Aborted",
    "AlreadyExists",
    "AsyncLictor",
    "ClockSetBack",
    "DeadlineExceeded",
    "Explanation",
    "FactUse",
    "FailedPrecondition",
    "FieldViolation",
    "FileEncrypted",
    "FileExpired",
    "FileKeyUnknown",
    "FileMalformed",
    "FileNotDecrypted",
    "FileNotYetValid",
    "FileOfOtherKind",
    "FileOfOtherMachine",
    "FileOfOtherProduct",
    "FileRolledBack",
    "FileSignatureInvalid",
    "FileStateUnreadable",
    "Fingerprint",
    "Internal",
    "InvalidArgument",
    "LicenseChange",
    "LicenseFileError",
    "Lictor",
    "LictorError",
    "NoStableIdentityError",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Validation",
    "ValidationResult",
    "VerifiedFile",
    "fingerprint",
    "verify_license_file",
    "verify_machine_file",
]
