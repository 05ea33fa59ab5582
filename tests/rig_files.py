"""Small glTF files for tests, written number by number."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

_CODES = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Gltf:
    """Collects arrays and JSON rows; `write` makes a .glb, or a .gltf with its buffer beside it or inside."""

    def __init__(self, **top: Any):
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": []} | top
        self.binary = b""

    def view(self, array: np.ndarray, stride: int = 0) -> int:
        """The number of a buffer view that holds an array [n, width], its rows ``stride`` bytes apart."""
        rows = [row.tobytes() for row in array]
        if stride:
            rows = [row.ljust(stride, b"\xee") for row in rows]
        self.binary = self.binary.ljust(-(-len(self.binary) // 4) * 4, b"\0")
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": sum(map(len, rows))}
        self.json["bufferViews"].append(view | ({"byteStride": stride} if stride else {}))
        self.binary += b"".join(rows)
        return len(self.json["bufferViews"]) - 1

    def put(self, array: Any, kind: str = "float32", *, normalized: bool = False, stride: int = 0) -> int:
        """The number of an accessor that holds an array [n] or [n, width]."""
        array = np.asarray(array).astype(kind)
        array = array.reshape(len(array), -1)
        accessor = {
            "bufferView": self.view(array, stride), "componentType": _CODES[kind], "count": len(array),
            "type": _KINDS[array.shape[1]],
        }  # fmt: skip
        self.json["accessors"].append(accessor | ({"normalized": True} if normalized else {}))
        return len(self.json["accessors"]) - 1

    def put_sparse(self, array: Any) -> int:
        """The same of float32, stored as what differs from zeros."""
        array = np.asarray(array, np.float32)
        index = np.flatnonzero(array.any(axis=1))
        sparse = {
            "count": len(index),
            "indices": {"bufferView": self.view(index.astype(np.uint16)[:, None]), "componentType": 5123},
            "values": {"bufferView": self.view(array[index])},
        }
        accessor = {"componentType": 5126, "count": len(array), "type": _KINDS[array.shape[1]], "sparse": sparse}
        self.json["accessors"].append(accessor)
        return len(self.json["accessors"]) - 1

    def add(self, name: str, row: dict) -> int:
        """The number of a row put into the list ``name``."""
        self.json.setdefault(name, []).append(row)
        return len(self.json[name]) - 1

    def write(self, path: Path, how: str = "") -> Path:
        """``how``: of a .gltf, data or file."""
        buffer: dict[str, Any] = {"byteLength": len(self.binary)}
        if path.suffix == ".gltf" and how == "data":
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        elif path.suffix == ".gltf":
            buffer["uri"] = f"{path.stem}%20b.bin"
            path.with_name(f"{path.stem} b.bin").write_bytes(self.binary)
        text = json.dumps(self.json | {"buffers": [buffer]}).encode()
        if path.suffix == ".gltf":
            path.write_bytes(text)
            return path
        text = text.ljust(-(-len(text) // 4) * 4)
        binary = self.binary.ljust(-(-len(self.binary) // 4) * 4, b"\0")
        path.write_bytes(
            struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(binary), len(text), 0x4E4F534A)
            + text + struct.pack("<II", len(binary), 0x004E4942) + binary
        )  # fmt: skip
        return path
