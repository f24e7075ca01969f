"""Signs as a sender with a private key does. Only for samples: no source has such a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from glassq.errors import OperationError

if TYPE_CHECKING:
    from glassq.sources.schemes.public_key import Algorithm

_MAKE = {
    "ed25519": "openssl genpkey -algorithm ed25519",
    "ecdsa": "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
}


def signature(pem: bytes | None, message: bytes, algorithm: Algorithm) -> bytes:
    """The signature of the message, by ed25519, or by ECDSA (P-256, SHA-256) in DER.

    Raises OperationError without a key, and for one that is another.
    """
    if pem is None:
        raise OperationError(
            "the settings hold the sender's public key alone, so only the sender can sign. For a trial make a pair of "
            f"your own ({_MAKE[algorithm]}), put its public key into the secrets file of a source, and name the "
            "private one with --key-file"
        )
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise OperationError(f"--key-file: expected a private key in PEM, without a password: {error}") from None
    if algorithm == "ed25519" and isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    if algorithm == "ecdsa" and isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(SHA256()))
    raise OperationError(f"--key-file: expected a key of the algorithm {algorithm}, as this source's sender has")
