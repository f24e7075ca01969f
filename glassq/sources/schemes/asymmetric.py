"""Public keys and certificates, and whether a signature is theirs.

The schemes import this module when they are prepared: the library takes 13 MB, and most settings need none of it.
No function here raises for a wrong signature, whatever its bytes are.
"""

from __future__ import annotations

import hashlib
import ssl
import warnings
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.x509 import verification

from glassq.errors import SourceUnready

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.sources.base import Body

# A shorter RSA key can be broken (NIST SP 800-131A).
MIN_RSA_BITS = 2048
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}


# -- keys --------------------------------------------------------------------------------------------------------------


def ed25519_key(raw: bytes) -> Ed25519PublicKey:
    """The key of 32 bytes. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(raw)


def p256_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a SubjectPublicKeyInfo in DER. Raises ValueError if it is no key on P-256."""
    try:
        key = serialization.load_der_public_key(der)
    except UnsupportedAlgorithm as error:
        raise ValueError("of an unknown algorithm") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not on P-256")
    return key


def rsa_key(modulus: int, exponent: int) -> RSAPublicKey:
    """Raises ValueError if the numbers are no key, or a weak one."""
    return _strong(RSAPublicNumbers(exponent, modulus).public_key())


def p256_key_at(x: int, y: int) -> ec.EllipticCurvePublicKey:
    """The key that is this point. Raises ValueError if the point is not on P-256."""
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _strong(key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_RSA_BITS:
        raise ValueError(f"holds no RSA key of {MIN_RSA_BITS} bits or more")
    return key


# -- signatures --------------------------------------------------------------------------------------------------------


def ed25519_matches(key: Ed25519PublicKey, signature: bytes, parts: Iterable[Body]) -> bool:
    """Whether the signature is that of the parts. They are joined: the library takes only whole messages."""
    try:
        key.verify(signature, b"".join(parts))
    except InvalidSignature:
        return False
    return True


def ecdsa_matches(key: ec.EllipticCurvePublicKey, signature: bytes, parts: Iterable[Body]) -> bool:
    """Whether the signature, in DER, is that of the parts' SHA-256."""
    try:
        key.verify(signature, _digest(parts, "sha256"), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def es256_matches(key: ec.EllipticCurvePublicKey, signature: bytes, parts: Iterable[Body]) -> bool:
    """The same for a signature as JWTs have it: two numbers of 32 bytes (RFC 7518, section 3.4)."""
    if len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    return ecdsa_matches(key, utils.encode_dss_signature(r, s), parts)


def rsa_matches(key: RSAPublicKey, signature: bytes, parts: Iterable[Body], algorithm: str = "sha256") -> bool:
    """Whether the signature (RSASSA-PKCS1-v1_5) is that of the parts, by "sha256" or "sha1".

    Raises SourceUnready where this machine's OpenSSL does not verify SHA-1 any more.
    """
    try:
        key.verify(signature, _digest(parts, algorithm), padding.PKCS1v15(), utils.Prehashed(_HASHES[algorithm]()))
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        raise SourceUnready(f"OpenSSL does not verify {algorithm} here: let the sender sign with SHA-256") from None
    return True


def _digest(parts: Iterable[Body], algorithm: str) -> bytes:
    hasher = hashlib.new(algorithm)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


# -- certificates ------------------------------------------------------------------------------------------------------


class Certificate:
    """A certificate as far as a signature needs it."""

    def __init__(self, parsed: x509.Certificate) -> None:
        """Raises ValueError if its key is none that signs pings."""
        self.key = _strong(parsed.public_key())
        self.begins = parsed.not_valid_before_utc.timestamp()
        self.ends = parsed.not_valid_after_utc.timestamp()

    def valid_at(self, now: float) -> bool:
        """Whether it is valid at this Unix time."""
        return self.begins <= now <= self.ends


def read_certificate(pem: bytes) -> Certificate:
    """The certificate in this file. Raises ValueError."""
    with _readable():
        return Certificate(_chain(pem)[0])


def read_trusted_chain(pem: bytes, *, domain: str, roots: Sequence[x509.Certificate]) -> Certificate:
    """The first certificate in this file: that of a name under `domain`, by way of the others trusted by `roots`.

    Its purpose is not looked at: signing webhooks is none that certificates know. Raises ValueError.
    """
    with _readable():
        leaf, *others = _chain(pem)
        names = _names(leaf)
    if not names or not all(name == domain or name.endswith(f".{domain}") for name in names):
        raise ValueError(f"sent a certificate that is not for {domain}")
    builder = verification.PolicyBuilder().store(verification.Store(list(roots))).time(datetime.now(UTC))
    policy = builder.extension_policies(
        ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=verification.ExtensionPolicy.permit_all()
    )
    try:
        policy.build_client_verifier().verify(leaf, others)
    except verification.VerificationError as error:
        raise ValueError(f"sent a certificate that is not trusted: {error}") from None
    with _readable():
        return Certificate(leaf)


def trusted_roots(pem: bytes = b"") -> list[x509.Certificate]:
    """The authorities in `pem`; those that this machine trusts if it is empty."""
    if pem:
        return _chain(pem)
    roots = []
    with warnings.catch_warnings():
        # some old authorities break a rule of today
        warnings.simplefilter("ignore")
        for der in ssl.create_default_context().get_ca_certs(binary_form=True):
            with suppress(ValueError):
                roots.append(x509.load_der_x509_certificate(der))
    return roots


@contextmanager
def _readable() -> Iterator[None]:
    """Raises ValueError for whatever the library raises for a certificate that it cannot read."""
    try:
        yield
    except (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm):
        raise ValueError("sent a certificate that cannot be read") from None


def _chain(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("sent no certificate in PEM") from None


def _names(certificate: x509.Certificate) -> list[str]:
    """The host names in a certificate, in lower case."""
    names: list[Any]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [found.value for found in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return [str(name).lower() for name in names]
