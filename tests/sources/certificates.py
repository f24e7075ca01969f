"""An authority of the tests, and what it certifies: servers on loopback, and those who sign pings."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """Signs certificates. One of its own makes an intermediate authority."""

    def __init__(self, name: str = "Test Root", parent: Authority | None = None) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        issuer = parent or self
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate: x509.Certificate = (
            _unsigned(_named(name), parent.certificate.subject if parent else _named(name), self.key, issuer.key, 100)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    def certify(self, name: str, *, days: float = 10) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
        """A certificate for a host name or address, valid since yesterday and for so many days more."""
        key = rsa.generate_private_key(65537, 2048)
        alternative = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        certificate = (
            _unsigned(_named(name), self.certificate.subject, key, self.key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate, key

    def server(self, directory: Path, name: str = "127.0.0.1", *, days: float = 10) -> ssl.SSLContext:
        """What a server of this name needs."""
        certificate, key = self.certify(name, days=days)
        file = directory / f"{name}.{days}.pem"
        file.write_bytes(
            pem_of(certificate)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(file)
        return tls

    def client(self) -> ssl.SSLContext:
        """What a client needs that trusts this authority, and no other."""
        return ssl.create_default_context(cadata=pem_of(self.certificate).decode())


def _unsigned(
    name: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, issuer_key: rsa.RSAPrivateKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1) + min(timedelta(0), timedelta(days=days)))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
