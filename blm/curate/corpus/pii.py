"""Personal data and secrets in text, masked: e-mail and IP addresses, telephone numbers, keys.

Precision comes first, since numbers are what spatial answers consist of: a telephone number needs a country code, an
area code in brackets, the American form, or a word such as 'phone' before it; an IP address must be public.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,6}"
    r"|\(\d{2,5}\) ?\d{3,4}(?:[ -]?\d{2,5}){1,2}"
    r"|\d{3}[-.]\d{3}[-.]\d{4}"
    r"|(?:(?<=phone )|(?<=phone: )|(?<=tel )|(?<=tel: )|(?<=tel. )|(?<=call )|(?<=mobile: ))"
    r"\d{2,5}(?:[ ./-]?\d{2,5}){1,4}"
    r")(?![\w-]|\.\d)",
    re.IGNORECASE,
)
_PHONE_DIGITS = range(7, 16)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\d|\w)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{4,42}(?![\w:])")
_VERSION = re.compile(r"(?:version|release|ver|v|build)[ .:]?$", re.IGNORECASE)
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----.{0,8000}?(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)"
    r"|\b(?:sk|pk|rk)[-_](?:live_|test_|proj-|ant-)?[A-Za-z0-9_-]{20,200}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,80}\b|\bgithub_pat_[A-Za-z0-9_]{40,100}\b|\bglpat-[A-Za-z0-9_-]{20,40}\b"
    r"|\bhf_[A-Za-z0-9]{30,60}\b|\bAIza[0-9A-Za-z_-]{35}\b|\bxox[abprs]-[A-Za-z0-9-]{10,100}"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,2000}",
    re.DOTALL,
)


def mask_personal_data(text: str) -> tuple[str, Counter[str]]:
    """The text with '[key]', '[email]', '[ip]' and '[phone]' in the place of such, and how many of each. O(length)."""
    found: Counter[str] = Counter()
    if "-" in text or "_" in text or "AKIA" in text or "ASIA" in text or "AIza" in text or "eyJ" in text:
        text = _masked(_KEY, "key", text, found, _always)
    if "@" in text:
        text = _masked(_EMAIL, "email", text, found, _always)
    if any(digit in text for digit in "0123456789"):
        text = _masked(_IPV4, "ip", text, found, _is_public)
        text = _masked(_PHONE, "phone", text, found, _is_telephone)
    if text.count(":") > 1:
        text = _masked(_IPV6, "ip", text, found, _is_public)
    return text, found


def _masked(
    pattern: re.Pattern[str],
    kind: str,
    text: str,
    found: Counter[str],
    accepts: Callable[[re.Match[str]], bool],
) -> str:
    def replace(match: re.Match[str]) -> str:
        if not accepts(match):
            return match.group()
        found[kind] += 1
        return f"[{kind}]"

    return pattern.sub(replace, text)


def _always(match: re.Match[str]) -> bool:
    return True


def _is_public(match: re.Match[str]) -> bool:
    if _VERSION.search(match.string, max(0, match.start() - 10), match.start()):
        return False
    try:
        return ipaddress.ip_address(match.group()).is_global
    except ValueError:
        return False


def _is_telephone(match: re.Match[str]) -> bool:
    return sum(character.isdigit() for character in match.group()) in _PHONE_DIGITS
