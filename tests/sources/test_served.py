"""The settings of an endpoint: what can work is accepted, all else refused without its secrets."""

from __future__ import annotations

import pytest

from interlace.errors import InputError
from interlace.params.served import ServedModel
from interlace.sources.endpoint import Endpoint
from interlace.sources.served import check_served, sends_in_clear

FIELD = "answers.endpoint"


def with_key(variable: str) -> ServedModel:
    return ServedModel(url="http://localhost/v1", model="m", key_variable=variable)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "HTTPS://api.example.com/v1/",
        "http://[::1]:8000/v1",
        "http://judge_1.local:65535",
        "https://xn--mnchen-3ya.de/v1",
        "http://10.0.0.7:80/a/b",
    ],
)
def test_an_address_that_the_client_can_call_is_accepted(url: str) -> None:
    check_served(ServedModel(url=url, model="m"), FIELD)
    Endpoint(ServedModel(url=url, model="m"), FIELD)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "file:///etc/passwd",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http:host/v1",
        "https:user:SECRET@host/v1",
        "http://host:0/v1",
        "http://host:/v1",
        "http://host:65536/v1",
        "http://host:-1/v1",
        "http://host:80a/v1",
        "http://host:80:80/v1",
        "http://[::1/v1",
        "http://[::g]/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://999.1.1.1/v1",
        "http://1.2.3/v1",
        "http://-host/v1",
        "http://a..b/v1",
        "http://a%00b/v1",
        f"http://{'a' * 64}/v1",
        f"http://host/{'a' * 70_000}",
        "http://ho st/v1",
        "http://host/v1\n",
        "http://host\t/v1",
        "http://h\u00f6st/v1",
        "http://me:SECRET@host/v1",
        "http://SECRET@host/v1",
        "https://host/v1?key=SECRET",
        "https://host?SECRET",
        "https://host/v1#SECRET",
    ],
    ids=lambda url: repr(url[:40]),
)
def test_any_other_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(
        InputError, match=r"^answers\.endpoint\.url.*: .*https://host/v1.*$"
    ) as caught:
        check_served(ServedModel(url=url, model="m"), FIELD)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("variable", ["sk-SECRET", "hf_SECRET", "sk SECRET", "A=SECRET", "$SECRET"])
def test_a_key_in_place_of_its_variable_s_name_is_not_printed(variable: str) -> None:
    with pytest.raises(InputError, match=r"^answers\.endpoint\.key_variable: ") as caught:
        check_served(with_key(variable), FIELD)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("key", ["SECRET\n", "SE CRET", "SECRET\u00e9", "\tSECRET"])
def test_a_key_that_no_header_may_hold_is_refused(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(InputError, match=r"'JUDGE_KEY': the key in it has") as caught:
        check_served(with_key("JUDGE_KEY"), FIELD)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "in_clear"),
    [
        (None, False),
        ("http://localhost:8000/v1", False),
        ("http://judge.localhost/v1", False),
        ("http://127.8.0.1/v1", False),
        ("http://[::1]/v1", False),
        ("https://example.com/v1", False),
        ("http://example.com/v1", True),
        ("HTTP://10.0.0.7/v1", True),
        ("http://localhost.example.com/v1", True),
        ("http://0.0.0.0/v1", True),
    ],
)
def test_plain_http_beyond_this_machine_is_seen(url: str | None, in_clear: bool) -> None:
    assert sends_in_clear(ServedModel(url=url)) is in_clear
