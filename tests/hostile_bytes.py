"""Damage to files, and files made to do harm, each a function of a random generator."""

import gzip
import io
import os
import tarfile
import zipfile


class Payload:
    """What a pickle, obeyed, would call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def damaged(rng, content, others=()):
    """Bytes with a few faults."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not content:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        at, size = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 64, 1000))
        match rng.randrange(8):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del content[at:]
            case 3:
                del content[at : at + size]
            case 4:
                content[at:at] = content[max(0, at - size) : at] * rng.choice((1, 2, 50))
            case 5:
                content[at : at + 8] = rng.choice(
                    (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\0\0\0\x80" * 2)
                )
            case 6:
                content[at:at] = bytes(rng.randrange(256) for _ in range(size))
            case 7 if others:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                content[at : at + size] = other[start : start + size]
    return bytes(content)


def value(rng, depth=0):
    """A plain value as JSON and YAML have them, or nearly."""
    odd = [None, True, False, 0, -1, 1, 0.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "null", "\x1b[2J"]
    odd += [
        "a\nb",
        "\u2028",
        "é" * 50,
        10**400,
        [1] * 1000,
        "../../etc/passwd",
        224,
        [8, 8],
        "1e-3",
        "9" * 5000,
        10**9,
        [3 * 10**4] * 2,
    ]
    if depth > 3 or rng.random() < 0.7:
        return rng.choice(odd)
    items = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return items if rng.random() < 0.5 else {str(rng.choice(odd))[:50]: item for item in items}


def changed(rng, plain):
    """A plain value with one part of it another, gone, or new."""
    if isinstance(plain, dict) and plain and rng.random() < 0.85:
        key = rng.choice(list(plain))
        plain = dict(plain)
        match rng.randrange(6):
            case 0:
                del plain[key]
            case 1:
                plain[str(value(rng))[:40]] = plain[key]
            case _:
                plain[key] = changed(rng, plain[key])
        return plain
    if isinstance(plain, list) and plain and rng.random() < 0.7:
        at = rng.randrange(len(plain))
        return [*plain[:at], changed(rng, plain[at]), *plain[at + rng.randrange(2) :]]
    return value(rng)


def encoded(picture, form):
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def packed(rng, suffix, members):
    out = io.BytesIO()
    if suffix == ".zip":
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
        with zipfile.ZipFile(out, "w", method) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if rng.random() < 0.03:
                links = tarfile.SYMTYPE, tarfile.LNKTYPE
                info.type = rng.choice((*links, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"x"))
            file.addfile(info, io.BytesIO(content))
    tar = out.getvalue() if rng.random() < 0.5 else damaged(rng, out.getvalue())
    return gzip.compress(tar, 1) if suffix == ".gz" else tar


def claiming_archive(rng, images):
    """A tar of members and headers of members whose sizes, kinds and contents are anything, checksums right."""
    kinds = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME]
    kinds += [tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE, tarfile.SOLARIS_XHDTYPE, tarfile.REGTYPE]
    keys = ("path", "size", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major", "x" * 300, "hdrcharset")
    names = ("a/1.png", "b/2.png", "note.txt", "a/" * 90 + "1.png", "b")
    parts = []
    for _ in range(rng.choice((1, 3, 10, 300))):
        info = tarfile.TarInfo(rng.choice(names))
        records = b"".join(_record(rng.choice(keys), str(value(rng))[:400]) for _ in range(rng.randrange(4)))
        content = rng.choice(
            (b"", rng.choice(images), records, records, b"1" * rng.choice((99, 1 << 20)), b"n" * 5000)
        )
        info.type, info.size = rng.choice(kinds), len(content)
        if rng.random() < 0.1:
            info.size = rng.choice((-512, -1024, -1, 0, 1 << 20, 3 << 30, 1 << 60, len(content) + 512))
        parts += [info.tobuf(tarfile.GNU_FORMAT), content, bytes(-len(content) % 512)]
    return b"".join(parts) + bytes(rng.choice((0, 1024, 10_240)))


def _record(key, text):
    """A line of a pax header, after its own length."""
    line = f" {key}={text}\n".encode("utf-8", "surrogatepass")
    length = len(line) + len(str(len(line) + 4))
    return str(length).encode() + line


def claiming_weights(rng, content):
    """An HDF5 file of weights in which one array is another, of which next to nothing is there."""
    import h5py

    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        names = []
        opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        if not names:
            return content
        name = rng.choice(names)
        shape = rng.choice(((), (1,), (10**9,), (2, 2), (10**5, 10**4), opened[name].shape, (1 << 40,)))
        del opened[name]
        match rng.randrange(3):
            case 0:
                opened[name] = h5py.ExternalLink("/etc/passwd", "/")
            case 1:
                opened[name] = h5py.SoftLink("/")
            case _:
                chunks = tuple(min(side, 1 << 12) for side in shape) or None
                kind = rng.choice(("float32", "float64", "int8", "S9"))
                opened.create_dataset(name, shape, kind, chunks=chunks, compression="gzip" if shape else None)
    return file.getvalue()


def with_member(content, name, inner):
    """A zip archive with one member replaced, and its checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as after:
        for member in before.infolist():
            found = member.filename == name or member.filename.endswith(f"/{name}")
            kind = zipfile.ZIP_DEFLATED if found and len(inner) > 1 << 20 else zipfile.ZIP_STORED
            after.writestr(member.filename, inner if found else before.read(member), kind)
    return out.getvalue()
