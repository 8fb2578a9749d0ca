"""A safetensors file that is written and read in pieces, by several processes, so that no tensor is ever in one whole.

The format: the length of a JSON header in 8 bytes, the header, the tensors one behind the other
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


_PIECE = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class Shape:
    """A tensor that is not there yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


def begin(path: Path, tensors: Mapping[str, Tensor], later: Mapping[str, Shape]) -> None:
    """Makes a file that has these tensors, and room for those that are :func:`put` later."""
    shapes = {**{name: Shape(tuple(t.shape), t.dtype) for name, t in tensors.items()}, **later}
    header, end = {}, 0
    for name, one in sorted(shapes.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):  # keeps all aligned
        start, end = end, end + torch.Size(one.shape).numel() * one.dtype.itemsize
        header[name] = {"dtype": _NAMES[one.dtype], "shape": list(one.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    for name, tensor in tensors.items():
        put(path, name, tensor)


def put(path: Path, name: str, values: Tensor, first: int = 0) -> None:
    """Writes values (n, …) in the places of the rows ``first`` to ``first + n - 1`` of a tensor."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        start, _ = json.loads(file.read(length))[name]["data_offsets"]
        plain = values.detach().cpu().contiguous()
        row = plain[:1].nbytes if plain.dim() else 0
        file.seek(8 + length + start + first * row)
        file.write(plain.flatten().view(torch.uint8).numpy().data)


def fill(rows: Tensor, path: Path, name: str, first: int) -> None:
    """Reads, into a tensor (n, …), the rows ``first`` to ``first + n - 1`` of one in a file, a few at a time."""
    at_once = max(_PIECE // max(rows[:1].nbytes, 1), 1)
    with safe_open(path, framework="pt") as file:
        stored = file.get_slice(name)
        for start in range(0, len(rows), at_once):
            end = min(start + at_once, len(rows))
            rows[start:end] = stored[first + start : first + end]


def tensors_but(path: Path, *names: str) -> dict[str, Tensor]:
    """All tensors but these, which are not read."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in sorted(set(file.keys()) - set(names))}


def mapped(path: Path, name: str) -> Tensor:
    """A tensor whose memory is that of the file, read when it is looked at; what is written to it stays in memory."""
    with safe_open(path, framework="pt") as file:
        found: Tensor = file.get_tensor(name)
        return found
