"""What the doctor's checks say of a capture: for the tests of those checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fourdgs.capture import Capture
from fourdgs.doctor import Finding, Survey, survey

Checks = Iterable[Callable[[Survey], list[Finding]]]


def look(capture: Capture) -> Survey:
    return survey(capture, cache=False, progress=False)


def findings_of(capture: Capture, checks: Checks) -> list[Finding]:
    seen = look(capture)
    return [finding for check in checks for finding in check(seen)]


def by_code(capture: Capture, checks: Checks) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings_of(capture, checks)}
