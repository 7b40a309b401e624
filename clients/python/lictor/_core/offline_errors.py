"""Why a license or machine file is refused: one class for each reason."""
# ruff: noqa: N818 - the classes say what is wrong; all are a LicenseFileError

from __future__ import annotations

from typing import ClassVar


class LicenseFileError(Exception):
    """A file that gives no right. `reason` is the word to compare; the message may change."""

    reason: ClassVar[str] = "REFUSED"


class FileMalformed(LicenseFileError):
    """The text is no file, is cut off or altered, or is of a version that this client does not know."""

    reason = "MALFORMED"


class FileOfOtherKind(LicenseFileError):
    """A machine file where a license file is wanted, or the other way round."""

    reason = "OTHER_KIND"


class FileKeyUnknown(LicenseFileError):
    """The key set has no key that signed it: it is of another product or mode, the key is revoked, or the set is old."""

    reason = "KEY_UNKNOWN"


class FileSignatureInvalid(LicenseFileError):
    """What is in the file is not what was signed."""

    reason = "SIGNATURE_INVALID"


class FileEncrypted(LicenseFileError):
    """The file is encrypted, and no license key was given."""

    reason = "ENCRYPTED"


class FileNotDecrypted(LicenseFileError):
    """The license key or the fingerprint is not the one that the file was encrypted with."""

    reason = "NOT_DECRYPTED"


class FileOfOtherProduct(LicenseFileError):
    """The file is for another product."""

    reason = "OTHER_PRODUCT"


class FileOfOtherMachine(LicenseFileError):
    """The file is for a machine with another fingerprint, or no fingerprint was given."""

    reason = "OTHER_MACHINE"


class FileRolledBack(LicenseFileError):
    """A newer file was seen already, or one from after a signing key was revoked."""

    reason = "ROLLED_BACK"


class ClockSetBack(LicenseFileError):
    """By the clock it is earlier than when the file was signed, or than when it was last verified."""

    reason = "CLOCK_SET_BACK"


class FileNotYetValid(LicenseFileError):
    """The file's time has not come."""

    reason = "NOT_YET_VALID"


class FileExpired(LicenseFileError):
    """The file's time is over."""

    reason = "EXPIRED"


class FileStateUnreadable(LicenseFileError):
    """What was kept of the files seen before is damaged. Delete it to begin anew, if nobody has tampered with it."""

    reason = "STATE_UNREADABLE"
