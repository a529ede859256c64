from __future__ import annotations

import pytest

from ckptstore.storage.service import service_of

URL = "s3://bucket/store"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "http://one:9000"},
        {"client_kwargs": {"endpoint_url": "http://one:9000"}},
        {"profile": "one"},
    ],
)
def test_an_endpoint_is_another_service(options):
    assert service_of(URL, options) not in {"", service_of(URL, {"endpoint_url": "http://two"})}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE"])
def test_the_environment_names_one_where_the_options_do_not(monkeypatch, name):
    given = {"endpoint_url": "http://two:9000"}
    plain = service_of(URL, given)
    monkeypatch.setenv(name, "http://one:9000")

    assert service_of(URL, {}) != ""
    assert service_of(URL, given) == plain


def test_an_account_is_told_from_another_and_no_credentials_are_kept():
    options = {
        "connection_string": "AccountName=ours;AccountKey=geheim;BlobEndpoint=http://a/?sig=geheim",
        "account_key": "geheim",
        "key": "geheim",
        "secret": "geheim",
        "endpoint_url": "http://user:geheim@host:9000",
        "client_kwargs": {"aws_session_token": "geheim"},
    }

    found = service_of("az://container/store", options)

    assert "ours" in found
    assert "host:9000" in found
    assert "geheim" not in found


def test_renewed_credentials_are_the_same_service():
    assert service_of(URL, {"key": "a", "secret": "b"}) == service_of(URL, {"key": "c"}) == ""
