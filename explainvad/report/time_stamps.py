"""Asks a server for time stamps (RFC 3161): the only network access of this package beside the weights' download."""

from __future__ import annotations

import asyncio
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

from asn1crypto import tsp
from pyhanko.sign.timestamps import TimeStamper, TimestampRequestError

_SECONDS = 30
_LARGEST = 1 << 20  # bytes of an answer; some have 6,000


class TimeStampServer(TimeStamper):
    """A server at an http or https address."""

    def __init__(self, url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.url = url

    async def async_request_tsa_response(self, req: Any) -> Any:
        """Send one request. Raises TimestampRequestError when the answer is none."""
        return await asyncio.to_thread(self._asked, req.dump())

    def _asked(self, request: bytes) -> Any:
        headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
        try:
            with urlopen(Request(self.url, request, headers), timeout=_SECONDS) as answer:  # noqa: S310
                return tsp.TimeStampResp.load(answer.read(_LARGEST), strict=True)
        except (OSError, HTTPException, ValueError) as error:
            raise TimestampRequestError(str(error) or type(error).__name__) from error
