"""What other libraries say is passed on without what is secret in it."""

from __future__ import annotations

import pytest

from ckptstore.storage.redaction import MASK, Options, redact


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ('Could not connect to "http://10.1.2.3:9000/b/k?list-type=2"', "10.1.2.3", "connect"),
        ("GET https://s3.eu.example.com/b?X-Amz-Signature=abcdef01 failed", "abcdef01", "failed"),
        ("Cannot connect to host minio.internal:9000 ssl:default", "minio.internal", "connect"),
        ("sftp://bob:hunter2@files/x: refused", "hunter2", "refused"),
        ("the key AKIAIOSFODNN7EXAMPLE is unknown", "AKIAIOSFODNN7EXAMPLE", "unknown"),
        ("Authorization: Bearer ya29.a0AfH6SNe failed", "ya29.a0AfH6SNe", "failed"),
        ("AccountName=x;AccountKey=Eby8vdM02xNOcqF==;more", "Eby8vdM02xNOcqF", "more"),
        ("{'secret_access_key': 'wJalrXUtnFEMI', 'a': 1}", "wJalrXUtnFEMI", "'a': 1"),
        ("?sv=2020&sig=Zm9vYmFy&se=x denied", "Zm9vYmFy", "denied"),
        ("password=hunter2 for bob", "hunter2", "for bob"),
    ],
)
def test_what_looks_like_a_credential_or_an_endpoint_is_masked(text, secret, kept):
    assert secret not in redact(text)
    assert kept in redact(text)


def test_the_values_of_options_are_masked_at_any_depth_and_in_any_form():
    options = {
        "key": "k",
        "secret": "s/cr+t value",
        "client_kwargs": {"region_name": "eu-west-1", "tokens": ["tok-a", b"tok-b"]},
    }

    said = redact("s/cr+t value, s%2Fcr%2Bt%20value, tok-a, tok-b, eu-west-1", options)

    assert said.replace(MASK, "").strip(" ,") == ""


def test_credentials_of_the_environment_are_masked(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "also-from-there")

    assert "there" not in redact("from-the-environment or also-from-there").replace("or also", "")


def test_what_is_not_secret_stays():
    text = "Access Denied (AccessDenied) on s3://bucket/some/prefix: version 00000001.jsonl"

    assert redact(text, {"anon": False, "max_concurrency": 4}) == text


def test_options_show_in_no_repr():
    options = Options({"secret": "hunter2"})

    assert "hunter2" not in f"{options!r} {options} {[options]}"
    assert options["secret"] == "hunter2"
