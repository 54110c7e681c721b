"""A local server of files, for tests of downloads."""

import http.server
from pathlib import Path


class Mirror(http.server.ThreadingHTTPServer):
    """A server of a folder that can resume. It cuts `breaks` connections half way; `asked` lists the Range headers."""

    def __init__(self, folder: Path, *, resumes: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.resumes, self.breaks = folder, resumes, 0
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        path, wanted = self.server.folder / self.path.lstrip("/"), self.headers.get("Range")
        self.server.asked.append(wanted)
        if not path.is_file():
            return self.send_error(404)
        body, status = path.read_bytes(), 200
        if wanted and self.server.resumes:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return self.send_error(416)
            body, status = body[start:], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass
