# SPDX-License-Identifier: Apache-2.0
"""The zip file of an access request, written front to back without ever being whole in memory."""

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from svc_profile.domain.data_requests import DataRequest

CHUNK_BYTES = 512 * 1024


class Pipe(io.RawIOBase):
    """A file that can only be appended to; what was written is taken out in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Append."""
        self._held += data
        return len(data)

    def take(self, *, all_: bool = False) -> list[bytes]:
        """Take out full pieces; at the end also the one that is not full."""
        pieces = []
        while len(self._held) >= CHUNK_BYTES or (all_ and self._held):
            pieces.append(bytes(self._held[:CHUNK_BYTES]))
            del self._held[:CHUNK_BYTES]
        return pieces


class Archive:
    """A zip file that is being written."""

    def __init__(self) -> None:
        self.pipe = Pipe()
        self._zip = zipfile.ZipFile(self.pipe, "w", zipfile.ZIP_DEFLATED)

    def open(self, name: str) -> Any:
        """Begin a file inside; it must be closed before the next one begins."""
        return self._zip.open(name, "w", force_zip64=True)

    def close(self) -> None:
        """Write the directory."""
        self._zip.close()


class CsvWriter:
    """Rows as CSV (RFC 4180) with a byte-order mark, so that spreadsheets read Korean."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)

    def header(self) -> bytes:
        """Return the first line."""
        return b"\xef\xbb\xbf" + self.lines([dict(zip(self._columns, self._columns, strict=True))])

    def lines(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        """Return rows."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        for row in rows:
            writer.writerow([_cell(row.get(column)) for column in self._columns])
        return buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        # A spreadsheet would run what begins like a formula.
        return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    if isinstance(value, (dict, list)):
        return msgspec.json.encode(value).decode()
    return "" if value is None else value


_PAGE = """<!doctype html>
<html lang="ko"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>개인정보 열람 결과 · Your personal data</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}td,th{{border:1px solid #ccc;padding:.4rem .6rem;text-align:left;
vertical-align:top}}</style></head><body>
<h1>개인정보 열람 결과<br><span lang="en">Your personal data</span></h1>
<p>요청 번호 {id} · 접수 {filed} · 작성 {made}<br>
<span lang="en">Request {id} · filed {filed} · made {made}</span></p>
<h2>보유하고 있는 개인정보 · <span lang="en">What we hold</span></h2>
<p>각 항목은 표(CSV)와 원본(JSON)으로 들어 있습니다.
<span lang="en">Each is in this file as a table (CSV) and as data (JSON).</span></p>
<table><tr><th>서비스 · Service</th><th>항목 · What</th><th>건수 · Rows</th><th>파일 · Files</th></tr>{files}</table>
<h2>이용 목적, 보유 기간, 제3자 제공 · <span lang="en">Purposes, periods, third parties</span></h2>
<table><tr><th>목적 · Purpose</th><th>법적 근거 · Legal basis</th><th>보유·이용 기간 · Period</th>
<th>안내 · Notice</th><th>회신 · Your answer</th></tr>{purposes}</table>
<p>목적에 「third_party」 가 있고 동의하신 경우에만 제3자에게 제공됩니다.
<span lang="en">Data are given to third parties only for purposes of that kind that you consented to.</span></p>
<h2>권리 · <span lang="en">Your rights</span></h2>
<p>정정·삭제·처리정지를 요구하실 수 있고, 동의는 언제든지 철회하실 수 있습니다.
<span lang="en">You may have these data rectified, restricted or erased, and withdraw consent at any time.</span></p>
</body></html>
"""

_FILE_ROW = (
    '<tr><td>{service}</td><td>{what}</td><td>{rows}</td><td><a href="{path}.csv">CSV</a> '
    '<a href="{path}.json">JSON</a></td></tr>'
)


def index_page(
    request: DataRequest, *, made: str, files: Mapping[tuple[str, str], int], purposes: Sequence[Sequence[str]]
) -> str:
    """Return the page that explains the archive, in Korean and English; `purposes` are rows of five cells."""
    rows = "".join(
        _FILE_ROW.format(
            service=escape(service), what=escape(file), rows=count, path=escape(f"{service}/{file}", quote=True)
        )
        for (service, file), count in files.items()
    )
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in purpose) + "</tr>" for purpose in purposes)
    return _PAGE.format(
        id=escape(request.data_request_id),
        filed=escape(request.draft.filed_time.isoformat()),
        made=escape(made),
        files=rows,
        purposes=cells,
    )
