"""Content Credentials: pictures signed by C2PA 2, and what a signature says. Needs the extra `c2pa`.

The certificate and the key are the user's. The manifest states the same digital source type as the XMP packet and binds
it to the bytes of the file: whoever changes a pixel breaks the signature.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from sanakit import __version__
from sanakit.base.echo import printable, quoted
from sanakit.base.errors import ConfigError
from sanakit.pipeline.provenance import GENERATED

_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},  # the picture is its own; a thumbnail adds 30 KB
    "verify": {"remote_manifest_fetch": False},  # no file makes us open a connection
}
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_CHUNK = b"caBX"  # where a PNG keeps its manifest (C2PA 2.2, section 11.3)
_MOST_BYTES = 1 << 20  # of a certificate chain or a key
_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Sign pictures. certificates: the chain in PEM, the signer's first. key: its private key in PEM, unencrypted."""

    certificates: bytes
    key: bytes = field(repr=False)
    algorithm: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `CERT,KEY`, the names of two files, and sign a test picture. Raises ConfigError."""
        names = text.split(",")
        if len(names) != 2 or not all(names):
            raise ConfigError(f"--sign takes two files, CERT.pem,KEY.pem, not {quoted(text)}")
        if not is_available():
            raise ConfigError("--sign needs the library c2pa: pip install 'sanakit[c2pa]'")
        certificates, key = (_read(Path(name.strip())) for name in names)
        signer = cls(certificates=certificates, key=key, algorithm=_algorithm(key, names[1]))
        signer.sign(_test_picture(), GENERATED)
        return signer

    def sign(self, png: bytes, source_type: str) -> bytes:
        """Add a manifest that states a digital source type to a PNG. Raises ConfigError for a bad certificate."""
        import c2pa

        signed = io.BytesIO()
        try:
            information = c2pa.C2paSignerInfo(self.algorithm.encode(), self.certificates, self.key, None)
            with (
                c2pa.Signer.from_info(information) as signer,
                c2pa.Builder(_manifest(source_type), context=_context()) as builder,
            ):
                builder.sign(signer, "image/png", io.BytesIO(png), signed)
        except c2pa.C2paError as error:
            raise ConfigError(
                f"the certificate and the key of --sign can't sign: {printable(error, 200)}"
            ) from None
        return signed.getvalue()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a signed picture says of its signature.

    valid: the file is as it was signed; None if the library to check it is missing. signer: as in its certificate.
    trusted: the certificate stands in a list of trust that the library knows.
    faults: what is wrong, as C2PA names it (`assertion.dataHash.mismatch`: the file was changed).
    """

    valid: bool | None
    signer: str = ""
    trusted: bool = False
    faults: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        plain = {"valid": self.valid, "signer": self.signer, "trusted": self.trusted}
        return plain | {"faults": list(self.faults)}

    def __str__(self) -> str:
        if self.valid is None:
            return "present; to check it: pip install 'sanakit[c2pa]'"
        who = f" by {self.signer}" if self.signer else ""
        if not self.valid:
            return f"BROKEN{who} ({', '.join(self.faults)})"
        return f"valid{who}{'' if self.trusted else ', a signer in no list of trust'}"


def is_available() -> bool:
    """Return whether the libraries that sign and check are installed."""
    return find_spec("c2pa") is not None and find_spec("cryptography") is not None


def read_signature(path: Path) -> Signature | None:
    """Return the signature of a PNG file, None if it has none."""
    data = path.read_bytes()
    if _CHUNK not in _chunk_kinds(data):
        return None
    if not is_available():
        return Signature(valid=None)
    import c2pa

    try:
        with c2pa.Reader("image/png", io.BytesIO(data), context=_context()) as reader:
            information = (reader.get_active_manifest() or {}).get("signature_info", {})
            results = reader.get_validation_results() or {}
    except c2pa.C2paError as error:
        return Signature(valid=False, faults=(printable(error, 120),))
    codes = [str(fault.get("code")) for fault in (results.get("activeManifest") or {}).get("failure", [])]
    faults = tuple(code for code in codes if code != _UNTRUSTED)
    names = (str(information.get(name) or "") for name in ("common_name", "issuer"))
    signer = printable(", ".join(filter(None, names)), 120)
    return Signature(valid=not faults, signer=signer, trusted=_UNTRUSTED not in codes, faults=faults)


def _chunk_kinds(png: bytes) -> Iterator[bytes]:
    """Yield the kinds of a PNG's chunks, as far as its lengths lead."""
    at = 8  # behind the file's signature; a chunk is length, kind, data, checksum
    while at + 8 <= len(png):
        yield png[at + 4 : at + 8]
        at += 12 + int.from_bytes(png[at : at + 4], "big")


def _manifest(source_type: str) -> str:
    action = {"action": "c2pa.created", "digitalSourceType": source_type}
    return json.dumps(
        {
            "claim_generator_info": [{"name": "sanakit", "version": __version__}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
    )


def _context() -> Any:
    import c2pa

    return c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))


def _algorithm(key: bytes, name: str) -> str:
    """Return the signature algorithm of C2PA for a private key (C2PA 2.2, section 13.2.1). Raises ConfigError."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{quoted(name)} isn't an unencrypted private key in PEM: {printable(error, 120)}"
        ) from None
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise ConfigError(f"{quoted(name)} is a key that C2PA does not sign with: take ECDSA, Ed25519 or RSA")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{quoted(str(path))} of --sign can't be read: {reason}") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{quoted(str(path))} of --sign is too large for a certificate or a key")
    return data


def _test_picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, format="PNG")
    return buffer.getvalue()
