"""A CSV file as rows of text under names, and the numbers in it, each named where it is wrong."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError


@dataclass
class Table:
    """The rows of a file, as many cells each as there are names; ``lines`` are where they stand in it."""

    path: Path
    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    def line(self, row: int) -> int:
        """The line of a row in the file, from 1."""
        return self.lines[row]

    def number(self, row: int, column: int) -> float:
        """A cell as a number, NaN and infinities included. Raises InputError where it is none."""
        cell = self.rows[row][column]
        try:
            return float(cell)
        except ValueError as error:
            message = f"is {cell[:40]!r}, must be a number" if cell else "is empty, must be a number"
            field = f"line {self.line(row)}: {self.names[column]}"
            remedy = "give its value, or take that row out"
            raise InputError(message, file=self.path, field=field, remedy=remedy) from error


def read_table(path: Path, text: str) -> Table:
    """Cells without blanks around them; separated by commas, or by semicolons or tabs where the first line has those.

    Raises:
        InputError: the file is empty, or a row has other cells than there are names.
    """
    first = text.lstrip("\r\n").partition("\n")[0]
    if not first.strip():
        raise InputError("is empty", file=path, remedy="export it again")
    separator = max(",;\t", key=first.count)
    names: list[str] = []
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not names:
                names = cells
                while names and not names[-1]:  # a comma at the end of every line
                    names.pop()
                continue
            if len(cells) > len(names) and any(cells[len(names) :]):
                message = f"has {len(cells)} cells, the first line has {len(names)} names"
                raise InputError(message, file=path, field=f"line {reader.line_num}", remedy="export it again")
            # A row that ends early is one with empty cells: so a frame without a face looks.
            rows.append((cells + [""] * len(names))[: len(names)])
            lines.append(reader.line_num)
    except csv.Error as error:
        message = f"is no CSV: {error}"
        raise InputError(message, file=path, field=f"line {reader.line_num}", remedy="export it again") from error
    return Table(path, names, rows, lines)
