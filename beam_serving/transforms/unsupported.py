"""Names of what is sent as an image and is none that can be served, told by how the file begins."""

from __future__ import annotations

_BEGINNINGS = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"\0\0\1\0", "icon (ICO)"),
    (b"\0\0\2\0", "cursor (CUR) or Targa (TGA)"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"qoif", "QOI"),
    (b"DDS ", "DirectDraw (DDS)"),
    (b"icns", "Apple icon (ICNS)"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"AT&TFORM", "DjVu"),
    (b"\x01\xda", "SGI image"),
    (b"\x0a\x05\x01\x08", "PCX"),
    (b"/* XPM */", "XPM"),
    (b"#define ", "XBM"),
    (b"SIMPLE  =", "FITS"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile (WMF)"),
    (b"\xabKTX", "KTX"),
    (b"FUJIFILMCCD-RAW", "raw photograph (RAF)"),
    (b"IIU\0", "raw photograph (RW2)"),
    (b"IIRO", "raw photograph (ORF)"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (b"FLV\1", "Flash video"),
    (b"OggS", "Ogg"),
    (b"\0\0\1\xba", "MPEG video"),
    (b"\0\0\1\xb3", "MPEG video"),
    (b"ID3", "MP3"),
    (b"fLaC", "FLAC"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"PK\3\4", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!", "RAR"),
    (b"\x93NUMPY", "NumPy array (send it as a tensor)"),
    (b"\x89HDF", "HDF5"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"/9j/", "base64 text of a JPEG (send the bytes)"),
    (b"iVBORw0KGgo", "base64 text of a PNG (send the bytes)"),
    (b"data:image/", "data URL (send the bytes)"),
    (b"http://", "URL (send the bytes)"),
    (b"https://", "URL (send the bytes)"),
)
_RIFF = {b"AVI ": "AVI video", b"WAVE": "WAV"}


def unsupported_format(encoded: bytes) -> str | None:
    """Return the name of a format that is not served, or None where the file does not tell."""
    if encoded.endswith(b"TRUEVISION-XFILE.\0"):
        return "Targa (TGA)"
    for beginning, name in _BEGINNINGS:
        if encoded.startswith(beginning):
            return name
    if encoded.startswith(b"RIFF"):
        return _RIFF.get(encoded[8:12])
    if encoded[4:8] == b"ftyp":
        return "raw photograph (CR3)" if encoded[8:12] == b"crx " else "MP4 or QuickTime video"
    if encoded[128:132] == b"DICM":
        return "DICOM"
    return _markup(encoded[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _markup(text: bytes) -> str | None:
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if text.startswith(b"<") and b"<svg" in text:
        return "SVG"
    if text.startswith(b"<?xml"):
        return "XML"
    return "JSON" if text.startswith((b'{"', b'["', b"[{", b"{}")) else None
