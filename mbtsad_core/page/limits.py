"""How much of the disk visitors may fill: an upload is turned away at the door where those before it have taken the
room.

Gradio limits each file. What all files take together, those that arrived and were never used included, is limited here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MEGABYTE = 1 << 20
UPLOADS_AT_ONCE = 16  # of the largest size that are kept or on their way, together


class Room:
    """Middleware that answers an upload with 507 where there is no room for it, and with 411 where it does not say how
    large it is.

    folders    where uploads are, on their way and kept
    megabytes  that they may take together; as much as one upload may take stays free on the disk
    """

    def __init__(self, app: ASGIApp, folders: Sequence[Path], megabytes: int) -> None:
        self.app, self.folders = app, list(folders)
        self.most, self.reserve = UPLOADS_AT_ONCE * megabytes * MEGABYTE, megabytes * MEGABYTE
        self.coming = 0  # bytes of the uploads that are being received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            await PlainTextResponse("An upload has to say how large it is (Content-Length).", 411)(scope, receive, send)
            return
        size = int(length)  # the server reads no more of it than this
        self.coming += size
        try:
            if await asyncio.to_thread(self._is_full):
                answer = PlainTextResponse(
                    "There is no room for more uploads here at the moment. Try again in some hours, or run MBTSAD on "
                    "your own machine.",
                    507,
                )
                await answer(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            self.coming -= size

    def _is_full(self) -> bool:
        taken = sum(map(bytes_in, self.folders))
        free = min((shutil.disk_usage(folder).free for folder in self.folders if folder.is_dir()), default=self.most)
        return taken + self.coming > self.most or free - self.coming < self.reserve


def bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder, at any depth; files that go meanwhile count as nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return total


def middleware(root: Path, received: Path, megabytes: int) -> list[Any]:
    """What `launch` puts before the app."""
    from starlette.middleware import Middleware

    return [Middleware(Room, folders=[root, received], megabytes=megabytes)]
