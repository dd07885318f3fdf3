"""Pictures signed by C2PA: what is signed reads back, what was changed shows, bad certificates end in one sentence."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sanakit.base.errors import ConfigError
from sanakit.cli import app
from sanakit.pipeline import signing
from sanakit.pipeline.png import Record, read_picture, write_picture
from sanakit.pipeline.provenance import GENERATED
from sanakit.pipeline.request import ImageRequest
from sanakit.pipeline.signing import Signature, Signer, read_signature

pytest.importorskip("c2pa", reason="signing needs the extra c2pa")

RECORD = Record(request=ImageRequest(prompt="a cube", width=64, height=64), made={"model": "toybox"})


def _name(text: str):
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test House"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def _certificate(subject: str, key, issuer: str, issuer_key, *, authority: bool):
    """A certificate by the profile of C2PA: key usage, and e-mail protection as its purpose."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = datetime.datetime.now(datetime.UTC)
    uses = dict.fromkeys(
        (
            "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
            "decipher_only",
        ),
        False,
    )  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **uses
    )
    builder = (
        x509.CertificateBuilder(_name(issuer), _name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`CERT,KEY`: a chain of two certificates and the key of the first."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("chain")
    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [
        _certificate("signer", key, "root", root, authority=False),
        _certificate("root", root, "root", root, authority=True),
    ]
    (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(s.Encoding.PEM) for one in chain))
    secret = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    return f"{folder / 'chain.pem'},{folder / 'key.pem'}"


@pytest.fixture
def signed(pair: str, tmp_path: Path) -> Path:
    image = Image.linear_gradient("L").convert("RGB")
    return write_picture(tmp_path / "signed.png", image, RECORD, Signer.parse(pair))


def test_a_signed_picture_keeps_its_pixels_and_its_request(signed: Path):
    assert read_picture(signed) == RECORD
    assert read_picture(signed).source_type == GENERATED
    with Image.open(signed) as image:
        assert image.convert("L").tobytes() == Image.linear_gradient("L").tobytes()


def test_the_signature_names_its_signer_and_the_source_type(signed: Path):
    import c2pa

    assert read_signature(signed) == Signature(valid=True, signer="signer, Test House")
    with c2pa.Reader(str(signed)) as reader:
        (actions,) = reader.get_active_manifest()["assertions"]
    assert actions["data"]["actions"] == [{"action": "c2pa.created", "digitalSourceType": GENERATED}]


def test_a_changed_byte_breaks_the_signature(signed: Path):
    data = bytearray(signed.read_bytes())
    data[data.rindex(b"IDAT") + 20] ^= 1
    signed.write_bytes(data)
    found = read_signature(signed)
    assert found is not None
    assert not found.valid
    assert found.faults == ("assertion.dataHash.mismatch",)


def test_a_picture_without_signature_has_none(tmp_path: Path):
    assert read_signature(write_picture(tmp_path / "a.png", Image.new("RGB", (8, 8)), RECORD)) is None


def test_without_the_library_a_signature_is_named_but_not_judged(
    signed: Path, pair: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    assert read_signature(signed) == Signature(valid=None)
    with pytest.raises(ConfigError, match=r"pip install 'sanakit\[c2pa\]'"):
        Signer.parse(pair)


def test_bad_files_end_in_one_sentence(pair: str, tmp_path: Path):
    certificate, key = pair.split(",")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no PEM")
    for text, words in (
        (certificate, "two files"),
        (f"{certificate},{tmp_path / 'none.pem'}", "No such file"),
        (f"{certificate},{rubbish}", "isn't an unencrypted private key"),
        (f"{rubbish},{key}", "can't sign"),
        (f"{key},{key}", "can't sign"),
    ):
        with pytest.raises(ConfigError, match=words):
            Signer.parse(text)


def test_the_command_signs_and_inspect_shows_it(pair: str, tmp_path: Path):
    small = ("--size", "32", "--steps", "1", "--device", "cpu", "--dtype", "fp32", "--fast", "off")
    path = tmp_path / "x.png"
    drawn = CliRunner().invoke(app, ["generate", "a red cube", *small, "--sign", pair, "--out", str(path)])
    assert drawn.exit_code == 0, drawn.output
    shown = CliRunner().invoke(app, ["inspect", str(path)])
    assert "AI label:     trainedAlgorithmicMedia, made by a trained model\n" in shown.output
    assert "signature:    valid by signer, Test House, a signer in no list of trust\n" in shown.output
    record = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).output)
    assert record["digital_source_type"] == GENERATED
    assert record["signature"] == {
        "valid": True,
        "signer": "signer, Test House",
        "trusted": False,
        "faults": [],
    }
    refused = CliRunner().invoke(
        app, ["generate", "a red cube", "--out", str(path)], env={"SANAKIT_SIGN": "one"}
    )
    assert refused.exit_code == 2 and "two files" in refused.output
