"""glTF 2.0 files: the JSON and the numbers of its accessors, from .glb or .gltf (Khronos, glTF 2.0 specification)."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from ..errors import InputError

_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_MOST = 1 << 28
"""More numbers than this in one accessor are a damaged file."""

_COPY = "unpack it with: gltf-transform copy in.glb out.glb (npm install --global @gltf-transform/cli)"
_REMEDIES = {
    "EXT_meshopt_compression": _COPY,
    "KHR_meshopt_compression": _COPY,
    "KHR_draco_mesh_compression": _COPY,
}
_HARMLESS = ("KHR_mesh_quantization", "KHR_lights_punctual", "KHR_xmp_json_ld", "VRM", "VRMC_vrm")
_LOOKS = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "MSFT_texture_", "VRMC_materials_")
"""Beginnings of extensions about materials and textures, which are not read at all."""


class GltfFile:
    """The JSON of a file as ``json``, and its arrays.

    Raises:
        InputError: the file is missing, damaged, not glTF 2.0, or packed in a way that is not read here.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise InputError("there is no such file", file=path) from None
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=path) from error
        text, self._binary = _split_glb(content, self.path) if content[:4] == b"glTF" else (content, None)
        try:
            self.json = json.loads(text)
            version = str(self.json["asset"]["version"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"is not a glTF file: {error}", file=path, remedy="export it as GLB") from error
        if not version.startswith("2."):
            raise InputError(f"is {version}, must be 2.0", file=path, field="asset.version", remedy="export it anew")
        for extension in self.json.get("extensionsRequired", []):
            if extension not in _HARMLESS and not extension.startswith(_LOOKS):
                self.refuse(extension)
        self._buffers: dict[int, bytes] = {}

    def refuse(self, extension: str) -> None:
        """Raise the InputError about an extension that is not read here."""
        remedy = _REMEDIES.get(extension, "export the file without it")
        raise InputError(f"needs {extension}, which is not read here", file=self.path, remedy=remedy)

    def extension(self, name: str) -> dict:
        """What an extension says of the whole file; {} where it is not there."""
        return self.json.get("extensions", {}).get(name, {})

    def rows(self, name: str) -> list[dict]:
        """The list ``name`` of the JSON, or an empty one."""
        return self.json.get(name, [])

    def row(self, name: str, index: Any) -> dict:
        """One entry of the list ``name``."""
        rows = self.rows(name)
        if not isinstance(index, int) or not 0 <= index < len(rows):
            raise InputError(f"there is no number {index!r}, there are {len(rows)}", file=self.path, field=name)
        return rows[index]

    def array(self, index: int) -> np.ndarray:
        """[count, width] of an accessor: float32 if stored so or normalised, else the stored integers."""
        accessor = self.row("accessors", index)
        field = f"accessors[{index}]"
        try:
            kind, width, count = _TYPES[accessor["componentType"]], _WIDTHS[accessor["type"]], int(accessor["count"])
            if not 0 <= count * width <= _MOST:
                raise InputError(f"has {count} entries", file=self.path, field=field, remedy="export the file anew")
            if "bufferView" in accessor:
                values = self._view(accessor["bufferView"], accessor.get("byteOffset", 0), kind, width, count, field)
            else:
                values = np.zeros((count, width), kind)
            if "sparse" in accessor:
                values = self._patched(values, accessor["sparse"], field)
        except (KeyError, TypeError) as error:
            raise InputError(f"is not understood: {error!r}", file=self.path, field=field) from error
        if accessor.get("normalized") and values.dtype.kind in "iu":
            # glTF 2.0, 3.11: the least signed number stands for -1 as well.
            return np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError("holds a value that is not finite", file=self.path, field=field)
        return values

    def _patched(self, values: np.ndarray, sparse: dict, field: str) -> np.ndarray:
        count, at, new = int(sparse["count"]), sparse["indices"], sparse["values"]
        kind = _TYPES[at["componentType"]]
        index = self._view(at["bufferView"], at.get("byteOffset", 0), kind, 1, count, field)[:, 0]
        if count and index.max() >= len(values):
            raise InputError(f"a sparse index is beyond its {len(values)} entries", file=self.path, field=field)
        values = values.copy()
        start = new.get("byteOffset", 0)
        values[index] = self._view(new["bufferView"], start, values.dtype.type, values.shape[1], count, field)
        return values

    def _view(self, index: int, start: int, kind: type, width: int, count: int, field: str) -> np.ndarray:
        """[count, width] out of a buffer view."""
        view = self.row("bufferViews", index)
        if "EXT_meshopt_compression" in view.get("extensions", {}):
            self.refuse("EXT_meshopt_compression")
        buffer = self._buffer(view["buffer"])
        size = np.dtype(kind).itemsize * width
        stride = view.get("byteStride", size)
        begin, end = view.get("byteOffset", 0), view.get("byteOffset", 0) + view["byteLength"]
        last = begin + start + max(count - 1, 0) * stride + size * (count > 0)
        if min(count, start, begin) < 0 or stride < size or last > min(end, len(buffer)):
            raise InputError("reaches beyond its buffer", file=self.path, field=field, remedy="export the file anew")
        little = np.dtype(kind).newbyteorder("<")
        if not count:
            return np.zeros((0, width), kind)
        table = np.ndarray((count, width), little, buffer, begin + start, (stride, little.itemsize))
        return table.astype(kind)

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            self._buffers[index] = self._read_buffer(index)
        return self._buffers[index]

    def _read_buffer(self, index: int) -> bytes:
        uri, field = self.row("buffers", index).get("uri"), f"buffers[{index}]"
        if uri is None:
            if index or self._binary is None:
                raise InputError("holds no data", file=self.path, field=field, remedy="export the file as GLB")
            return self._binary
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise InputError(f"is not base64: {error}", file=self.path, field=field) from error
        beside = self.path.parent / unquote(uri)
        # A file that was handed over says what is read: only what lies beside it or below.
        if ":" in uri or not beside.resolve().is_relative_to(self.path.parent.resolve()):
            raise InputError(f"{uri!r} is not a file beside it", file=self.path, field=field, remedy="export as GLB")
        try:
            return beside.read_bytes()
        except OSError as error:
            message = f"{uri!r} cannot be read: {error.strerror}"
            raise InputError(message, file=self.path, field=field, remedy="put the .bin beside the .gltf") from error


def _split_glb(content: bytes, path: Path) -> tuple[bytes, bytes | None]:
    """The JSON and the binary chunk of a GLB (glTF 2.0, 4.4)."""
    try:
        _, version, length = struct.unpack_from("<III", content)
        size, kind = struct.unpack_from("<I4s", content, 12)
        text = content[20 : 20 + size]
        if version != 2 or kind != b"JSON" or len(content) < length or len(text) < size:
            raise ValueError(f"{len(content)} bytes of {length} of a GLB of version {version}")
        if length <= 20 + size:
            return text, None
        more, kind = struct.unpack_from("<I4s", content, 20 + size)
        return text, content[28 + size : 28 + size + more] if kind == b"BIN\0" else None
    except (struct.error, ValueError) as error:
        raise InputError(f"is not a whole GLB file: {error}", file=path, remedy="download or export it anew") from error
