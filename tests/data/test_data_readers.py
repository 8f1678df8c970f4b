"""Reading real files: every format, a messy folder, and each kind of bad input."""

import gzip
import json
import os
import sys
import zipfile
from contextlib import suppress

import docx
import pyarrow as pa
import pyarrow.parquet as pq
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.data import Limits, read
from isometry.data.readers.content import decode, is_binary
from isometry.data.readers.html import html_text
from isometry.errors import DataFormatError, EmptyInput, InputError


def pdf_bytes(pages, title="Statutes"):
    """A PDF written by hand, one line of Helvetica a page (an empty string makes a page without text)."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size, start = len(objects) + 1, len(body)
    body += f"xref\n0 {size}\n0000000000 65535 f \n{table}"
    body += f"trailer\n<< /Size {size} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return body.encode("latin-1")


def write_docx(path):
    document = docx.Document()
    document.core_properties.title = "Minutes"
    document.add_paragraph("The board met on Monday.")
    table = document.add_table(rows=1, cols=3)
    for cell, text in zip(table.rows[0].cells, ("tea", "5", "5"), strict=True):
        cell.text = text
    document.add_paragraph("Nobody objected.")
    document.save(path)


def only(path, **options):
    (unit,) = read(path, **options)
    return unit


# Formats


def test_text_and_markdown(tmp_path):
    (tmp_path / "a.md").write_bytes("\ufeff# A title #\r\nBody – text.\r\n".encode())
    unit = only(tmp_path / "a.md")
    assert (unit.id, unit.path, unit.title, unit.text) == ("a.md", "a.md", "A title", "# A title #\nBody – text.\n")
    (tmp_path / "b.py").write_text("# not a title\nx = 1\n")
    assert only(tmp_path / "b.py").title == ""
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"packed text"))
    assert only(tmp_path / "c.txt.gz").text == "packed text"


PAGE = """<!doctype html><html><head><title> Tea &amp; cake </title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><h1>Tea</h1><p>Hot <b>bl</b>ack   tea.<br>Second line.</p>
<script>alert("no")</script><ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table></body></html>"""


def test_html_the_same_with_and_without_selectolax(tmp_path, monkeypatch):
    expected = ("Tea & cake", "Tea\nHot black tea.\nSecond line.\none\ntwo\na\nb")
    assert html_text(PAGE) == expected
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    assert html_text(PAGE) == expected
    (tmp_path / "p.html").write_bytes('<meta charset="iso-8859-1"><p>caf\xe9 \xa9'.encode("latin-1"))
    reading = read(tmp_path / "p.html")
    assert [u.text for u in reading] == ["café ©"]
    assert reading.warnings == ["p.html: read as iso-8859-1"]


def test_deeply_nested_html_is_survived():
    assert html_text("<div>" * 5_000 + "deep")[1] == "deep"


def test_pdf_keeps_page_numbers(tmp_path):
    (tmp_path / "law.pdf").write_bytes(pdf_bytes(["First page.", "", "Third page."]))
    reading = read(tmp_path / "law.pdf")
    units = list(reading)
    assert [(u.page, u.text, u.title, u.locator) for u in units] == [
        (1, "First page.", "Statutes", "page"),
        (3, "Third page.", "Statutes", "page"),
    ]
    assert len({u.id for u in units}) == 2
    assert reading.warnings == ["law.pdf: 1 of 3 pages hold no extractable text and were left out"]


def test_docx_paragraphs_and_tables_in_order(tmp_path):
    write_docx(tmp_path / "m.docx")
    unit = only(tmp_path / "m.docx")
    assert (unit.title, unit.text) == ("Minutes", "The board met on Monday.\ntea | 5 | 5\nNobody objected.")


ROWS = [
    {"id": "x1", "title": "One", "abstract": "First, text.", "year": 1999, "zip": "01234"},
    {"id": "x2", "title": "Two", "abstract": 'With "quotes"\nand a line end', "year": 2001, "zip": "12345"},
]


def test_tables_agree_whatever_the_format(tmp_path):
    quoted = ROWS[1]["abstract"].replace('"', '""')
    (tmp_path / "t.csv").write_text(
        'id,title,abstract,year,zip\nx1,One,"First, text.",1999,01234\n' + f'x2,Two,"{quoted}",2001,12345\n'
    )
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    seen = []
    for name in ("t.csv", "t.jsonl", "t.jsonl.gz", "t.parquet"):
        units = list(read(tmp_path / name))
        assert [u.first_line for u in units] == ([2, 3] if name == "t.csv" else [1, 2])
        seen.append([(u.id, u.title, u.text, dict(u.payload)) for u in units])
    expected = [(r["id"], r["title"], r["abstract"], {"year": r["year"], "zip": r["zip"]}) for r in ROWS]
    assert all(rows == expected for rows in seen)


def test_tsv_knows_no_quotes_and_numbers_its_rows(tmp_path):
    (tmp_path / "t.tsv").write_text('text\tn\n"half a quote\t1\nplain\t\n')
    units = list(read(tmp_path / "t.tsv"))
    assert [(u.id, u.text, dict(u.payload)) for u in units] == [
        ("t.tsv:2", '"half a quote', {"n": 1}),
        ("t.tsv:3", "plain", {"n": None}),
    ]


def test_columns_by_name(tmp_path):
    (tmp_path / "t.csv").write_text("key;body;note;text\nk1;b1;n1;t1\n")
    unit = only(tmp_path / "t.csv", text_column="body", id_column="key", title_column="note")
    assert (unit.id, unit.text, unit.title, dict(unit.payload)) == ("k1", "b1", "n1", {"text": "t1"})
    with pytest.raises(InputError, match=r"no column 'nope'; it has key, body, note, text"):
        read(tmp_path / "t.csv", text_column="nope")
    (tmp_path / "u.csv").write_text("alpha,beta\n1,2\n")
    with pytest.raises(InputError, match=r"which column holds the text\?.*alpha, beta"):
        read(tmp_path / "u.csv")


def test_rows_without_text_are_counted(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": ""}\n{"text": null}\n')
    reading = read(tmp_path / "t.jsonl")
    assert len(list(reading)) == 1
    assert reading.warnings == ["t.jsonl: 2 rows without text left out, the first: line 2"]


def test_halves_of_surrogate_pairs_are_replaced(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a \\ud800 b \\ud83d\\ude42", "tag": ["\\udc00"]}\n')
    unit = only(tmp_path / "t.jsonl")
    assert unit.text == "a ? b 🙂"
    assert unit.payload == {"tag": ["?"]}


def test_beir_folder(tmp_path):
    root, tmp_path = tmp_path, tmp_path / "set"
    (tmp_path / "qrels").mkdir(parents=True)
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "T", "text": "body", "year": 3}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "question"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    unit = only(tmp_path)
    assert (unit.id, unit.title, unit.text, dict(unit.payload)) == ("d1", "T", "body", {"year": 3})
    nested = read(root)
    assert [u.id for u in nested] == ["set/corpus.jsonl:d1"]
    assert [s.path for s in nested.skipped] == ["set/qrels/", "set/queries.jsonl"]


# Folders


@pytest.fixture
def messy(tmp_path):
    root = tmp_path / "messy"
    for folder in ("sub/deep", "node_modules/pkg", ".git", "logs"):
        (root / folder).mkdir(parents=True)
    (root / "a.txt").write_text("Alpha.")
    (root / "Makefile").write_text("all:\n\techo hi\n")
    (root / "latin.txt").write_bytes("Müller ging über die Straße, naïve façade.".encode("cp1252"))
    (root / "law.pdf").write_bytes(pdf_bytes(["Only page."]))
    (root / "scan.pdf").write_bytes(pdf_bytes([""]))
    write_docx(root / "m.docx")
    (root / "binary.txt").write_bytes(b"PK\0\1\2" * 50)
    (root / "empty.txt").write_text("")
    (root / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    (root / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (root / "t1.csv").write_text("id,text\n1,row one\n")
    (root / "t2.csv").write_text("id,text\n1,row one of the other\n")
    (root / "node_modules/pkg/index.js").write_text("x")
    (root / ".git/config").write_text("x")
    (root / ".env").write_text("PASSWORD=x")
    (root / ".gitignore").write_text("*.log\nlogs/\n!keep.log\n")
    (root / "x.log").write_text("noise")
    (root / "keep.log").write_text("signal")
    (root / "logs/y.txt").write_text("noise")
    (root / "sub/.gitignore").write_text("secret.txt\n")
    (root / "sub/secret.txt").write_text("secret")
    (root / "sub/b.md").write_text("# Beta\ntext")
    (root / "sub/deep/secret.txt").write_text("secret")
    (root / "sub/deep/loop").symlink_to(root)
    (root / "sub/dangling.txt").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe.txt")
    return root


def test_messy_folder(messy):
    reading = read(messy)
    units = list(reading)
    assert [u.id for u in units] == [
        "Makefile",
        "a.txt",
        "keep.log",
        "latin.txt",
        "law.pdf#page=1",
        "m.docx",
        "t1.csv:1",
        "t2.csv:1",
        "sub/b.md",
    ]
    assert reading.warnings == ["latin.txt: read as cp1252"]
    reasons = {s.path: s.reason for s in reading.skipped}
    for path, part in {
        ".env": "hidden",
        ".git/": "hidden",
        "bad.jsonl": "line 2: the line is not valid JSON",
        "binary.txt": "binary",
        "empty.txt": "empty",
        "logs/": "excluded by .gitignore",
        "node_modules/": "excluded by default",
        "photo.png": "no reader for .png",
        "pipe.txt": "not a regular file",
        "scan.pdf": "no extractable text",
        "sub/dangling.txt": "broken link",
        "sub/deep/loop": "link to a folder",
        "sub/deep/secret.txt": "excluded by sub/.gitignore",
        "sub/secret.txt": "excluded by sub/.gitignore",
        "x.log": "excluded by .gitignore",
    }.items():
        assert part in reasons[path], path
    files = {p.relative_to(messy).as_posix() for p in messy.rglob("*") if p.is_file()}
    passed = {u.path for u in units} | set(reasons)
    unaccounted = {f for f in files if f not in passed and not any(r.endswith("/") and f.startswith(r) for r in passed)}
    assert unaccounted == set()


def test_messy_folder_is_read_the_same_twice_and_heeds_exclude(messy):
    first, second = read(messy), read(messy)
    assert list(first) == list(second)
    assert first.skipped == second.skipped
    reading = read(messy, exclude=["*.csv", "sub/", "keep.log"])
    assert {u.path for u in reading} == {"Makefile", "a.txt", "latin.txt", "law.pdf", "m.docx"}
    assert {s.path for s in reading.skipped if s.reason == "excluded as asked"} == {
        "t1.csv",
        "t2.csv",
        "sub/",
        "keep.log",
    }


def test_deep_folder(tmp_path):
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("deep")
    assert only(tmp_path).text == "deep"


# Encodings


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("El niño comió en el café más tranquilo de la ciudad", "cp1252"),
        ("Привет, как дела? Это обычный русский текст.", "cp1251"),
        ("これは日本語のテキストです。今日は天気がいいですね。", "shift_jis"),
        ("这是一个中文文本,今天天气很好。", "gb18030"),
    ],
)
def test_encodings_before_utf8(text, encoding):
    assert decode(text.encode(encoding)) == (text, f"read as {encoding}")


def test_byte_order_marks_and_broken_utf8():
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert decode("Grüße 🙂".encode(encoding)) == ("Grüße 🙂", "")
        assert not is_binary("Grüße 🙂".encode("utf-16"))
    text, note = decode("Grüße, schöne Straße".encode() + b"\xff")
    assert text == "Grüße, schöne Straße\ufffd"
    assert note == "broken UTF-8, 1 unreadable characters replaced"


@given(st.binary(max_size=200))
def test_any_bytes_decode(data):
    decode(data)[0].encode("utf-8", "surrogatepass")


# Bad input


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no file or folder"):
        read(tmp_path / "nope")
    with pytest.raises(InputError, match="no file or folder ''"):
        read("")
    with pytest.raises(EmptyInput, match="is empty"):
        read(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\0")
    with pytest.raises(EmptyInput, match=r"nothing that can be read \(a.png: no reader for .png files\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt", b"", EmptyInput, "is empty"),
        ("a.txt", b" \n", EmptyInput, "holds no text"),
        ("a.txt", b"\x7fELF\0\0", InputError, "is binary"),
        ("a.csv", b"text\n\0\n", InputError, "is binary"),
        ("a.xyz", b"\0\1", InputError, "is binary"),
        ("a.html", b"<script>x</script>", EmptyInput, "no visible text"),
        ("a.pdf", b"not a pdf", InputError, "not a readable PDF"),
        ("a.pdf", pdf_bytes([""]), InputError, "no extractable text"),
        ("a.docx", b"not a zip", InputError, "not a readable DOCX"),
        ("a.docx", b"\xd0\xcf\x11\xe0rest", InputError, "encrypted or in the older .doc"),
        ("a.parquet", b"PAR1junk", InputError, "not a readable Parquet"),
        ("a.jsonl.gz", b"not gzip", DataFormatError, "not a whole gzip"),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], DataFormatError, "not a whole gzip"),
        ("a.pdf.gz", gzip.compress(b"x", mtime=0), InputError, "unpack it first"),
        ("a.csv", b"text\n", EmptyInput, "no rows"),
        ("a.csv", b"text,text\na,b\n", DataFormatError, "two columns are named 'text'"),
        ("a.csv", b"text,n\na,1\nb\n", DataFormatError, r"a.csv:3: the row has 1 fields"),
        ("a.csv", b'text,n\n"open,1\nb,2\n', DataFormatError, r"a.csv:2: .*check its quotes"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', DataFormatError, r"a.jsonl:2: the line holds a list"),
        ("a.jsonl", b'{"text": "a"}\n\xff\n', DataFormatError, r"a.jsonl:2: the line is not UTF-8"),
        ("a.jsonl", b'{"text": ["a"]}\n', DataFormatError, r"a.jsonl:1: 'text' holds a list"),
        ("a.jsonl", b'{"text": "a"}\n' + b'{"a":' * 100_000, DataFormatError, r"a.jsonl:2: "),
        ("a.jsonl", b'{"id": 7, "text": "a"}\n{"id": 8, "text": "a"}\n{"id": 7, "text": "b"}\n', DataFormatError,
         r"a.jsonl:3: the id '7' was already used in line 1"),
        ("a.jsonl", b'{"id": 7, "text": "a"}\n{"text": "a"}\n', DataFormatError, r"a.jsonl:2: the row has no 'id'"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, name, content, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        list(read(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_skip_bad_goes_on_and_counts(tmp_path):
    lines = ['{"id": 1, "text": "a"}', "{", '{"id": 1, "text": "b"}', '{"id": 2, "text": "c"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    reading = read(tmp_path / "a.jsonl", skip_bad=True)
    assert [u.text for u in reading] == ["a", "c"]
    assert len(reading.warnings) == 1
    assert reading.warnings[0].startswith("a.jsonl: 2 bad rows left out, the first: line 2: the line is not valid JSON")


def test_encrypted_pdf(tmp_path):
    (tmp_path / "plain.pdf").write_bytes(pdf_bytes(["Secret."]))
    for name, user in (("locked.pdf", "key"), ("owner.pdf", "")):
        writer = pypdf.PdfWriter(clone_from=tmp_path / "plain.pdf")
        writer.encrypt(user_password=user, owner_password="owner", algorithm="RC4-128")
        writer.write(tmp_path / name)
    with pytest.raises(InputError, match="is encrypted; remove its password"):
        read(tmp_path / "locked.pdf")
    assert only(tmp_path / "owner.pdf").text == "Secret."


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.parquet"])
def test_damaged_files_never_escape_as_other_errors(tmp_path, name):
    (tmp_path / "a.pdf").write_bytes(pdf_bytes(["First page.", "Second page."]))
    write_docx(tmp_path / "a.docx")
    pq.write_table(pa.table({"text": ["é", "b"] * 20, "id": [str(i) for i in range(40)]}), tmp_path / "a.parquet")
    whole = (tmp_path / name).read_bytes()
    for cut in range(0, len(whole), len(whole) // 60):
        (tmp_path / name).write_bytes(whole[:cut] + b"\xff\0>>" + whole[cut + 4 :])
        with suppress(InputError):
            list(read(tmp_path / name))


def test_permission_denied(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("other")
    kind = type(tmp_path)
    opened = kind.open

    def guarded(self, *args, **kwargs):
        if self.name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(kind, "open", guarded)
    with pytest.raises(InputError, match="permission denied"):
        read(tmp_path / "a.txt")
    reading = read(tmp_path)
    assert [u.path for u in reading] == ["b.txt"]
    assert "permission denied" in reading.skipped[0].reason


def test_size_limits_and_bombs(tmp_path):
    small = Limits(max_file_bytes=100_000, max_unpacked_bytes=1_000_000)
    (tmp_path / "big.txt").write_text("x" * 100_001)
    with pytest.raises(InputError, match=r"is 0.1 MB, more than the limit of 0.1 MB"):
        read(tmp_path / "big.txt", limits=small)
    bomb = gzip.compress(b'{"text": "' + b"a" * 50_000_000)
    for name in ("bomb.txt.gz", "bomb.jsonl.gz", "bomb.csv.gz"):
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(InputError, match="unpacks to more than the limit of 1 MB"):
            read(tmp_path / name, limits=small)
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 2_000_000)
    with pytest.raises(InputError, match="unpacks to more than the limit"):
        read(tmp_path / "bomb.docx", limits=small)
    pq.write_table(pa.table({"text": ["a" * 2_000_000]}), tmp_path / "bomb.parquet")
    with pytest.raises(InputError, match="unpacks to more than the limit"):
        read(tmp_path / "bomb.parquet", limits=small)


def test_a_reading_of_a_big_table_is_drawn_row_by_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' * 3 + "broken\n")
    units = iter(read(tmp_path / "a.jsonl"))
    assert [next(units).text for _ in range(3)] == ["fine"] * 3
    with pytest.raises(DataFormatError, match=r"a\.jsonl:4"):
        next(units)
