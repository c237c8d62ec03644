"""Checks of an endpoint's settings: its address, its model and its key. No message holds a secret.

Nothing is sent. No torch here.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from interlace.errors import InputError, shown
from interlace.params.served import ServedModel
from interlace.printable import say

LONGEST_URL = 2000  # characters
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[!-~]+")  # printable ASCII without spaces
_HOST = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)


def check_served(
    served: ServedModel, field: str, names: tuple[str, str] = ("url", "model")
) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Args:
        served: the endpoint.
        field: its section of params.yaml, e.g. `evaluate.judge`.
        names: the names of `url` and `model` in that section.

    Raises:
        InputError: the address is not one, or the model or the key is missing.
    """
    if served.url is None:
        return
    if complaint := _address_complaint(served.url, field):
        value = "" if set("@?#") & set(served.url) else f" = {shown(served.url)}"
        raise InputError(
            f"{field}.{names[0]}{value}: {complaint}; write it as https://host/v1, without secrets"
        )
    if not served.model:
        raise InputError(f"{field}.{names[1]}: empty; name the model that the endpoint serves")
    if served.key_variable:
        _check_key(served.key_variable, f"{field}.key_variable")


def _check_key(variable: str, field: str) -> None:
    if not _VARIABLE.fullmatch(variable):
        raise InputError(
            f"{field}: not the name of an environment variable; export the key in one, e.g."
            " API_KEY, and write that name here, never the key"
        )
    key = os.environ.get(variable)
    value = f" = {variable!r}" if variable.isupper() else ""  # lower case may be the key itself
    if not key:
        raise InputError(
            f"{field}{value}: that environment variable is not set; export the endpoint's key in"
            " it, or leave the field empty for an endpoint without keys"
        )
    if not _WORD.fullmatch(key):
        raise InputError(
            f"{field}{value}: the key in it has a space, a line break or a letter that no header"
            " may hold; export it anew"
        )


def sends_in_clear(served: ServedModel) -> bool:
    """Tell if the key and the messages would cross a network unencrypted."""
    if served.url is None:
        return False
    address = urlsplit(served.url)
    host = address.hostname or ""
    local = host == "localhost" or host.endswith(".localhost")
    return address.scheme == "http" and not local and not _is_loopback(host)


def warn_of_plain_http(served: ServedModel, field: str, name: str = "url") -> None:
    """Print a warning where `sends_in_clear` is true."""
    if sends_in_clear(served):
        say(
            f"warning: {field}.{name} is plain http to another machine: the key and the answers can"
            " be read on the way; use https",
            error=True,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _address_complaint(url: str, field: str) -> str | None:
    """Say why an address is none, without its user, password and query; None where it is one."""
    if not _WORD.fullmatch(url) or len(url) > LONGEST_URL:
        return "empty, too long, or with a space or a letter beyond ASCII"
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError:  # a port that is no number below 65536, or half of an IPv6 address
        return "its host or its port is not valid"
    if "@" in url:
        return f"holds a user or a password; export the key, and name it in {field}.key_variable"
    if "?" in url or "#" in url:
        return "holds a query or a fragment, to which no path can be added"
    if address.scheme not in ("http", "https"):
        return "not an address of http or https"
    if port == 0 or address.netloc.endswith(":") or not _is_host(host):
        return "without a valid host and port"
    return None


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        numbers = re.fullmatch(r"[\d.]+", host)
        return len(host) < 254 and not numbers and _HOST.fullmatch(host) is not None
    return "%" not in host
